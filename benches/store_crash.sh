#!/usr/bin/env bash
# Kills the store with -9 at random moments, 200 times in each mode, and checks every picture.
#
#   benches/store_crash.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${1:-200}
DARKROOM_CRASH_ROUNDS=$rounds cargo test --test it -- store::crash::kill --nocapture --test-threads=1
