#!/bin/sh
# Push the lines of a file with nc (netcat-openbsd), from the listener's own host.
#
#     INGEST_TOKEN=... push-nc.sh HOST PORT NAME FILE && rm FILE
#
# It succeeds when all lines are on the listener's disk. From another host the token must not cross
# the network in clear: use push-tls.sh there.
set -eu
if [ $# != 4 ] || [ -z "${INGEST_TOKEN:-}" ]; then
    echo "INGEST_TOKEN=... $0 HOST PORT NAME FILE" >&2
    exit 2
fi
host=$1 port=$2 name=$3 file=$4

login=$(printf '\0%s\0%s' "$name" "$INGEST_TOKEN" | base64 | tr -d '\n')
lines=$(tr -d '\r' <"$file" | tr '\0' 0 | LC_ALL=C grep -c . || true) # empty ones do not count

# -N closes the sending side at the end of the file. The listener then puts everything on disk, says
# so, and closes its own. The first reply is `OK device=... next=43 ...`, the last is `ACK 52`.
{ printf 'AUTH PLAIN %s\n' "$login"; cat "$file"; } | nc -N "$host" "$port" | {
    next= last= error=
    while read -r word rest; do
        case $word in
            OK) next=${rest#*next=} next=${next%% *} last=$((next - 1)) ;;
            ACK) last=$rest ;;
            *) error="$word $rest" && echo "$error" >&2 ;;
        esac
    done
    [ -n "$next$error" ] || echo "no OK from $host:$port; does a listener run there?" >&2
    stored=$((${last:-0} - ${next:-1} + 1))
    echo "$stored of $lines lines are on disk"
    [ -n "$next" ] && [ "$stored" -eq "$lines" ]
}
