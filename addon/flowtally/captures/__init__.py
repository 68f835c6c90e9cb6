"""What others recorded, as records: HAR files, mitmproxy's flow files, and gzip of any of them."""
