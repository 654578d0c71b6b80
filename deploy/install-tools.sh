#!/bin/sh
# Installs what building (`build`), testing (`test`) or measuring (`bench`) needs and this machine lacks: with apt on
# Debian and its kin; elsewhere it says what to install. Does nothing where nothing is missing. Tests measure too,
# so that they need what `bench` does.
set -eu

rust_version=1.95
missing=

need() { # command package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

need_file() { # glob package
    for file in $1; do
        [ -x "$file" ] && return 0
    done
    missing="$missing $2"
}

need_module() { # file package
    [ -f "/usr/lib/nginx/modules/$1" ] || missing="$missing $2"
}

need_library() { # file package
    for file in /usr/lib/*/"$1"; do
        [ -f "$file" ] && return 0
    done
    missing="$missing $2"
}

# Servers are found there also by users whose PATH leaves it out.
PATH=$PATH:/usr/sbin

need cc gcc
need cmake cmake
need make make
if [ "${1:-build}" = test ]; then
    need chromium chromium
    need chromedriver chromium-driver
    need mariadbd mariadb-server
fi
if [ "${1:-build}" != build ]; then
    need nginx nginx
    need_module ngx_http_lua_module.so libnginx-mod-http-lua
    need_module ngx_http_brotli_static_module.so libnginx-mod-http-brotli-static
    need_library lua/5.1/cjson.so lua-cjson
    need haproxy haproxy
    need varnishd varnish
    need wrk wrk
    need taskset util-linux
    need redis-server redis-server
    need setpriv util-linux
    need_file "/usr/lib/postgresql/*/bin/postgres" postgresql
fi

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "Please install:$missing (the names are Debian's)" >&2
        exit 1
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then as_root=sudo; fi
    echo "installing:$missing"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
    echo "Rust is installed but not on the PATH: run '. \$HOME/.cargo/env' first" >&2
    exit 1
fi
if ! command -v cargo >/dev/null 2>&1; then
    if command -v apt-get >/dev/null 2>&1 && apt-cache show rustup >/dev/null 2>&1; then
        as_root=
        if [ "$(id -u)" -ne 0 ]; then as_root=sudo; fi
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq rustup >/dev/null
        rustup default stable
    else
        echo "Please install Rust $rust_version or newer: https://rustup.rs" >&2
        exit 1
    fi
fi
have=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$rust_version" "$have" | sort -V | head -n 1)" != "$rust_version" ]; then
    echo "Rust $have is too old: Floodgate needs $rust_version or newer (rustup update)" >&2
    exit 1
fi
