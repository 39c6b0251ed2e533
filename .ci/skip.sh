# shellcheck shell=bash
# Sourced by the other scripts, which may skip something only by calling `skip`.

SKIPPED=0

# skip WHAT MISSING…: reports that WHAT is not tested because tools are missing. If CI is set and
# not empty, this is a failure.
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
