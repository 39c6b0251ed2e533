# shellcheck shell=bash
# Sourced by the other scripts. There is no other way for them to skip something.

SKIPPED=0

# skip WHAT MISSING…: reports that something is not tested because tools are missing. If CI is set
# to anything but the empty string, this is a failure.
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
