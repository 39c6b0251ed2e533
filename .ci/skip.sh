# shellcheck shell=bash
# Sourced by the other scripts: the only way for one of them to skip something.

SKIPPED=0

# skip WHAT MISSING…: reports that something is not tested for want of these. With CI set to
# anything but the empty string that is a failure instead.
skip() {
    local what=$1
    shift
    if [ -n "${CI:-}" ]; then
        printf 'FAILED: with CI set %s must not be skipped; missing: %s\n' "$what" "$*" >&2
        exit 1
    fi
    SKIPPED=$((SKIPPED + 1))
    printf 'SKIPPED %d: %s; missing: %s\n' "$SKIPPED" "$what" "$*" >&2
}
