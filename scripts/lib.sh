# shellcheck shell=bash
# What the scripts of this folder share: messages, Debian packages, the Rust toolchain.
# To be sourced. It changes to the top of the checkout, so that every script runs from any directory.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' green=$'\e[32m' yellow=$'\e[33m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' green='' yellow='' red='' plain=''
fi

step() { printf '%s==> %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '    %s\n' "$*"; }
good() { printf '    %s%s%s\n' "$green" "$*" "$plain"; }
warn() { printf '%swarning:%s %s\n' "$yellow" "$plain" "$*" >&2; }
die() {
    printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Whether `as_root` can work at all.
can_be_root() { [[ $EUID -eq 0 ]] || have sudo; }

as_root() {
    if [[ $EUID -eq 0 ]]; then "$@"; else sudo -- "$@"; fi
}

# Prints those of the named Debian packages that are not installed.
missing_packages() {
    local package
    for package; do
        if [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
            printf '%s\n' "$package"
        fi
    done
}

# Installs Debian packages without starting any daemon that they bring: maintainer scripts ask policy-rc.d, and 101
# means "not allowed". A policy that is there already is the administrator's and stays as it is.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made_policy='' status=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        made_policy=1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install --yes --quiet --no-install-recommends \
        -o DPkg::Lock::Timeout=120 "$@" </dev/null || status=$?
    if [[ -n $made_policy ]]; then as_root rm -f "$policy"; fi
    return "$status"
}

# Installs those of the named Debian packages that are missing. Where that cannot be done it says what to run and goes
# on: the tests that need them then say that they were skipped.
want_packages() {
    local missing
    if ! have dpkg-query || ! have apt-get; then
        warn "not a Debian system: install the equivalents of these packages yourself: $*"
        return 0
    fi
    mapfile -t missing < <(missing_packages "$@")
    if [[ ${#missing[@]} -eq 0 ]]; then return 0; fi
    if ! can_be_root; then
        warn "these packages are missing and neither root nor sudo is at hand; as root, run:"
        warn "    apt-get install ${missing[*]}"
        return 0
    fi
    step "Installing what the tests need: ${missing[*]}"
    as_root apt-get update --quiet </dev/null || warn "apt-get update failed; trying with the lists at hand"
    apt_install "${missing[@]}" || warn "apt-get install failed; the tests that need these programs are skipped"
}

# Whether version $1 is at least version $2.
version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort --version-sort | head -n 1) == "$2" ]]; }

# The oldest Rust that Cargo.toml accepts.
rust_wanted() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml; }

# The version of the cargo on PATH, empty if there is none that works.
cargo_version() { cargo --version 2>/dev/null | cut -d ' ' -f 2; }

cargo_is_new_enough() {
    local version
    version=$(cargo_version)
    [[ -n $version ]] && version_at_least "$version" "$(rust_wanted)"
}

# Makes sure that a new enough cargo is on PATH: the one at hand, rustup's own, or Debian's rustup package.
want_cargo() {
    local wanted
    wanted=$(rust_wanted)
    if cargo_is_new_enough; then return 0; fi
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    if cargo_is_new_enough; then return 0; fi
    if ! have rustup && have apt-cache && can_be_root \
        && apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
        step "Installing rustup, because Rust $wanted is needed"
        apt_install rustup || true
    fi
    if have rustup; then
        step "Installing a Rust toolchain that is at least $wanted"
        rustup toolchain install stable --profile minimal --component rustfmt --component clippy </dev/null
        export RUSTUP_TOOLCHAIN=stable
        hash -r
    fi
    if ! cargo_is_new_enough; then
        warn "Rust $wanted or newer is needed, found: $(cargo_version || true)"
        die "run: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    fi
}

# Makes sure that `cargo $1` (fmt, clippy) works; $2 is the rustup component that brings it.
want_component() {
    if cargo "$1" --version >/dev/null 2>&1; then return 0; fi
    if ! have rustup; then die "cargo $1 is missing: install the package that brings it (rustup: $2)"; fi
    rustup component add "$2"
}

# Makes sure that `cargo deb` works. A missing one is built into the build folder, which takes a minute or two.
want_cargo_deb() {
    local tools
    tools=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}/tools")
    PATH="$PATH:$tools/bin"
    if cargo deb --version >/dev/null 2>&1; then return 0; fi
    step "Installing cargo-deb"
    env -u CARGO_TARGET_DIR cargo install cargo-deb --version '=3.8.0' --locked --root "$tools" </dev/null
}
