# Sourced by every script and by `make`: where caches live and how C and C++ are compiled.
# A fresh clone on the same machine finds the same folder, so nothing is compiled twice.
export GANTRY_CACHE="${GANTRY_CACHE:-$HOME/.cache/gantry}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$GANTRY_CACHE/target}"
export CCACHE_DIR="$GANTRY_CACHE/ccache" CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=5G
if command -v ccache >/dev/null 2>&1; then
  export CC="ccache gcc" CXX="ccache g++"
fi
