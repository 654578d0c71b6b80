#!/bin/sh
# A crowd against a fresh shop: starts `floodgate run` on an empty folder, plays `perf crowd` against it
# with the arguments given here, holds its history against the books, and stops it. STOCK (units) and
# FLOODGATE, PERF (the binaries) may be set.
#
#   perf/crowd.sh --buyers 50000 --within 20s --out perf/runs/today     with STOCK=2000
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
floodgate=${FLOODGATE:-$root/target/release/floodgate}
perf=${PERF:-$root/target/release/perf}
folder=$(mktemp -d)
shop=

clean_up() {
    if [ -n "$shop" ]; then
        kill -TERM "$shop" 2>/dev/null || :
        wait "$shop" 2>/dev/null || :
    fi
    rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

cp -r "$here/config" "$folder/config"
ln -s "$root/html" "$folder/html"
if [ -n "${STOCK:-}" ]; then
    sed -i "s/^stock = .*/stock = $STOCK/" "$folder/config/promos/crowd.toml"
fi
"$floodgate" run --config "$folder/config" >"$folder/out" 2>"$folder/log" &
shop=$!
tries=0
until grep -q '^Ctrl-C' "$folder/out"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 300 ] || ! kill -0 "$shop" 2>/dev/null; then
        echo "the shop did not open:" >&2
        cat "$folder/out" "$folder/log" >&2
        exit 1
    fi
    sleep 0.1
done
# The history goes where the arguments have it.
history=
before=
for word in "$@"; do
    case $before in
    --history) history=$word ;;
    --out) history=${history:-$word/history.jsonl} ;;
    esac
    before=$word
done
if [ -z "$history" ]; then
    history=$folder/history.jsonl
    set -- "$@" --history "$history"
fi
played=0
"$perf" crowd --url http://127.0.0.1:18080 --promo 1 --audit \
    --operator-token-file "$folder/data/operator.token" "$@" || played=$?
# 2: a promise was broken; the audit says more. Anything else: there is no whole history.
[ "$played" -eq 0 ] || [ "$played" -eq 2 ] || exit "$played"
"$floodgate" audit --config "$folder/config" --wait 25s --history "$history"
exit "$played"
