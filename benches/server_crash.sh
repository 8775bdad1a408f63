#!/usr/bin/env bash
# Kills the server with -9 at random moments, also while it starts, 200 times, and compares each next start with all
# that its clients were told. Prints a row for RESULTS.md.
#
#   benches/server_crash.sh [ROUNDS [PROGRAM]]
#
# PROGRAM is the build to kill; where none is named, the release build is made and killed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${1:-200}
program=${2:-target/release/darkroom}
[ $# -ge 2 ] || cargo build --release
DARKROOM_CRASH_PROGRAM=$(realpath "$program")
export DARKROOM_CRASH_PROGRAM
DARKROOM_CRASH_ROUNDS=$rounds cargo test --test it -- serve::crash::kill --nocapture
