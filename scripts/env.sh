# Sourced by every script and by `make`: where caches live and how C and C++ are compiled.
# A fresh clone on the same machine finds the same folder, so nothing is compiled twice.
export GANTRY_CACHE="${GANTRY_CACHE:-$HOME/.cache/gantry}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$GANTRY_CACHE/target}"
export CCACHE_DIR="$GANTRY_CACHE/ccache" CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=5G
if command -v ccache >/dev/null 2>&1; then
  export CC="ccache gcc" CXX="ccache g++"
fi
# Go, where scripts/setup had to fetch it.
if [ -x "$GANTRY_CACHE/tools/go/bin/go" ]; then
  export PATH="$GANTRY_CACHE/tools/go/bin:$PATH"
fi

# Cargo knows the crates of two checkouts apart by nothing but time stamps: in the shared folder it would take an
# older checkout's crates for built, from the other one's sources. A change of checkout builds our own crates anew.
gantry_checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ -d "$CARGO_TARGET_DIR" ] && [ "$(cat "$CARGO_TARGET_DIR/.checkout" 2>/dev/null)" != "$gantry_checkout" ]; then
  rm -rf "$CARGO_TARGET_DIR"/*/.fingerprint/gantry*
  echo "$gantry_checkout" >"$CARGO_TARGET_DIR/.checkout"
fi
unset gantry_checkout
