#!/bin/sh
# Starts simdino with the libtorch of the torch @TORCH@ that python3 would import.
# SIMDINO_TORCH_LIB selects another one by the folder of its libraries.
set -eu

fail() {
    printf 'simdino: %s\n' "$1" >&2
    exit 1
}

# Finds torch without importing it, which would take seconds. Ignores the current folder, which
# Python would search first.
find_torch='
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import importlib.util, os
spec = importlib.util.find_spec("torch")
if spec is None or spec.origin is None:
    sys.exit(1)
print(os.path.dirname(os.path.abspath(spec.origin)))
'

# A wheel has version.py; an archive of libtorch has build-version.
version_of() {
    if [ -r "$1/version.py" ]; then
        sed -n "s/^__version__ *= *['\"]\([^'\"]*\).*/\1/p" "$1/version.py"
    elif [ -r "$1/build-version" ]; then
        cat "$1/build-version"
    fi
}

otherwise="activate an environment that has torch @TORCH@ (python3 -m pip install torch==@TORCH@), or set \
SIMDINO_TORCH_LIB to the folder torch/lib of one"
if [ -n "${SIMDINO_TORCH_LIB:-}" ]; then
    lib=${SIMDINO_TORCH_LIB%/}
    [ -e "$lib/libtorch_cpu.so" ] || fail "SIMDINO_TORCH_LIB is $lib, which has no libtorch_cpu.so: set it \
to the folder torch/lib of a torch @TORCH@, or unset it to use that of python3"
else
    python=$(command -v python3) || fail "there is no python3 on PATH to take torch from: $otherwise"
    torch=$("$python" -c "$find_torch") || fail "$python has no torch: $otherwise"
    lib=$torch/lib
fi
case $lib in
    *[:\;]*) fail "no library can be loaded from $lib, because its path has a colon or semicolon" ;;
esac

version=$(version_of "$(dirname -- "$lib")")
case $version in
    @MINOR@.*) ;;
    '') fail "no file next to $lib says which version of torch it is, and it must be @MINOR@: $otherwise" ;;
    *) fail "torch is $version in $lib, but must be @MINOR@: $otherwise" ;;
esac
for name in @LIBRARIES@; do
    [ -e "$lib/$name" ] || fail "torch $version in $lib has no $name: it is not the build that \
pip installs by default, which runs with and without a GPU: $otherwise"
done

LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
# This script may be started through a link in any folder.
here=$(dirname -- "$(readlink -f -- "$0")")
exec "$here/../libexec/simdino" "$@"
