# To be sourced: programs that Python's packages do not bring.

need() { # program, Debian package
    command -v "$1" >/dev/null && return
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "$1 is missing: install it (Debian package $2)" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "$2"
}

need_postgresql() {
    with_postgresql
    need initdb postgresql
    with_postgresql
}

# Debian keeps the programs of the PostgreSQL server beside PATH
with_postgresql() {
    local programs
    for programs in /usr/lib/postgresql/*/bin; do PATH=$PATH:$programs; done
}
