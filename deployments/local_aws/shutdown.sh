#!/bin/sh
# Plans the end of the instance, as systemd's shutdown does: -h or -P with now, +MINUTES or nothing for +1; -c takes it
# back. What it writes is read by who runs the instance.
plan="$(dirname "$(dirname "$0")")/run/shutdown"

refuse() {
    echo "shutdown: $1" >&2
    exit 1
}

when=
for argument in "$@"; do
    [ -z "$when" ] || break # what follows the time is a message to whoever is logged in
    case "$argument" in
        -h | -P | --poweroff) ;;
        -c) rm -f "$plan" && exit 0 ;;
        now) when=0 ;;
        + | +*[!0-9]*) refuse "Failed to parse time specification: $argument" ;;
        +*) when="${argument#+}" ;;
        *) refuse "this machine knows -h, -P, -c, now and +MINUTES, and not $argument" ;;
    esac
done
echo "${when:-1}" >"$plan.new" && mv "$plan.new" "$plan"
