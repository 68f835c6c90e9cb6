#!/usr/bin/env bash
#
# Starts mitmdump with flowtally on 127.0.0.1:8080, or shows what flowtally does:
#
#   scripts/run.sh [mitmdump arguments]           for example -p 9090, or --set flowtally_log=FILE
#   scripts/run.sh --demo [mitmdump arguments]    real exchanges of every kind, in a few seconds
#
# Needs Python 3.11 or newer. The first run installs mitmproxy into .venv beside this folder.
# PYTHON names the interpreter to use.

set -euo pipefail
repository=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=scripts/environment.sh
source "$repository/scripts/environment.sh"

find_python
prepare_environment "$repository/.venv" .

if [ "${1-}" = --demo ]; then
    shift
    exec "$repository/.venv/bin/python" "$repository/scripts/demo.py" "$@"
fi

# What the user asks for decides where mitmdump listens and what may be said about it. The defaults
# are passed only where nothing was asked: mitmproxy lets -p win over --set listen_port, and refuses
# the same --set twice.
host="" port="" mode="" confdir="" log="" hint=yes
read_option() {
    case $1 in
    listen_host) host=$2 ;;
    listen_port) port=$2 ;;
    mode) mode=$2 ;;
    confdir) confdir=$2 ;;
    flowtally_log) log=$2 ;;
    esac
}
previous=""
for argument in "$@"; do
    case $previous in
    --listen-host) host=$argument ;;
    -p | --listen-port) port=$argument ;;
    -m | --mode) mode=$argument ;;
    --set) read_option "${argument%%=*}" "${argument#*=}" ;;
    *)
        case $argument in
        --listen-host=*) host=${argument#*=} ;;
        --listen-port=*) port=${argument#*=} ;;
        -p?*) port=${argument#-p} ;;
        --mode=*) mode=${argument#*=} ;;
        -m?*) mode=${argument#-m} ;;
        --set=*)
            argument=${argument#--set=}
            read_option "${argument%%=*}" "${argument#*=}"
            ;;
        # Nothing to point a browser at, or the user wants quiet.
        -h | --help | --version | --options | --commands) hint="" ;;
        -q | --quiet | -n | --no-server | -nr | -qn | -nq | -qnr | -nqr) hint="" ;;
        esac
        ;;
    esac
    previous=$argument
done

if [ -n "$hint" ]; then
    address=${host:-127.0.0.1}:${port:-8080}
    {
        if [ -z "$mode" ] || [ "$mode" = regular ]; then
            echo "Proxy for browsers and apps, http and https:  $address"
            echo "Certificate for https, through the proxy:     http://mitm.it"
            echo "Try it:                                       curl -x http://$address http://example.com/"
        else
            echo "mitmdump --mode $mode: see below where it listens."
        fi
        echo "Session log:                                  ${log:-${confdir:-~/.mitmproxy}/flowtally/}"
        echo "Ctrl-C ends the session and prints its summary."
        echo
    } >&2
fi
if [ -z "$port" ]; then
    set -- --listen-port 8080 "$@"
fi
if [ -z "$host" ]; then
    set -- --listen-host 127.0.0.1 "$@"
fi
exec "$repository/.venv/bin/mitmdump" -s "$repository/addon/main.py" "$@"
