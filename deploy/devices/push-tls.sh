#!/bin/sh
# Push the lines of a file with `openssl s_client`, over TLS.
#
#     INGEST_TOKEN=... push-tls.sh HOST PORT NAME FILE [CA-FILE] && rm FILE
#
# It succeeds when all lines are on the listener's disk. CA-FILE holds the certificate that vouches
# for the listener's, if the system does not know it.
set -eu
if [ $# -lt 4 ] || [ $# -gt 5 ] || [ -z "${INGEST_TOKEN:-}" ]; then
    echo "INGEST_TOKEN=... $0 HOST PORT NAME FILE [CA-FILE]" >&2
    exit 2
fi
host=$1 port=$2 name=$3 file=$4 ca=${5:-}

work=$(mktemp -d)
trap 'kill "$tls" "$sender" 2>/dev/null || true; rm -rf "$work"' EXIT
tls= sender=
mkfifo "$work/in" "$work/out"

# What the certificate must be for: a name, which is sent as well, or an address.
case $host in
    *:*) address="[$host]:$port" for="-verify_ip $host" ;;
    *[!0-9.]*) address=$host:$port for="-servername $host -verify_hostname $host" ;;
    *) address=$host:$port for="-verify_ip $host" ;;
esac

# -quiet also takes a line that begins with Q or R as what it is, and not as a command to s_client.
# Without -verify_return_error and -verify_hostname or -verify_ip it would talk to anybody.
# shellcheck disable=SC2086 # $for is several words
openssl s_client -quiet -connect "$address" $for -verify_return_error \
    ${ca:+-CAfile "$ca"} <"$work/in" >"$work/out" 2>"$work/errors" &
tls=$!
exec 3>"$work/in" 4<"$work/out"

fail() {
    if [ $# -gt 0 ]; then echo "$*"; else cat "$work/errors"; fi >&2
    exit 1
}

login=$(printf '\0%s\0%s' "$name" "$INGEST_TOKEN" | base64 | tr -d '\n')
printf 'AUTH PLAIN %s\n' "$login" >&3
read -r word rest <&4 || fail
[ "$word" = OK ] || fail "$word $rest"
next=${rest#*next=} next=${next%% *}

# The replies are read while the lines are sent. TLS has no half-closed connection: the sending side
# must stay open until the last acknowledgement is there.
lines=$(tr -d '\r' <"$file" | tr '\0' 0 | LC_ALL=C grep -c . || true) # empty ones do not count
last=$((next - 1))
{ cat "$file"; echo; } >&3 & # the empty line ends a last line that has no end
sender=$!
while [ $((last - next + 1)) -lt "$lines" ]; do
    read -r word rest <&4 || fail
    [ "$word" = ACK ] || fail "$word $rest"
    last=$rest
done
echo "$lines of $lines lines are on disk"
