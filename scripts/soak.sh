# Sourced by the soaks: a server of their own, good clients, figures and a verdict.
# What a soak that failed has seen (the server's log and counters, every client's figures) is kept below
# $GANTRY_CACHE/logs, and its last line says where; GANTRY_SOAK_KEEP=1 keeps it in any case.
# GANTRY_SOAK_BINARY is a `gantry` that is built already; without it one is built for release.
. scripts/env.sh

if [[ -n "${GANTRY_SOAK_BINARY:-}" ]]; then
  gantry="$GANTRY_SOAK_BINARY"
else
  cargo build --release --locked --quiet -p gantry
  gantry="$CARGO_TARGET_DIR/release/gantry"
fi

soak_folder="$(mktemp -d)"
server_pid=''
helpers=()
verdict=0
# What starts the server and good clients, such as `taskset`.
server_on=() clients_on=()
# Below the ports that the system gives to clients.
soak_port="${GANTRY_SOAK_PORT:-19870}"

end_soak() {
  local pid code="$1"
  # Who reads the output may be gone; messages have to go all the same.
  trap '' PIPE
  set +e
  for pid in "${helpers[@]}" $server_pid; do
    kill "$pid" 2>/dev/null || true
  done
  wait
  rm -rf "$soak_folder/data"
  if [[ "$code" != 0 || -n "${GANTRY_SOAK_KEEP:-}" ]]; then keep_evidence; fi
  rm -rf "$soak_folder"
}
trap 'end_soak $?' EXIT

# Keeps everything but messages.
keep_evidence() {
  local kept
  kept="$GANTRY_CACHE/logs/$(basename "$0")-$(date +%Y%m%d-%H%M%S)"
  mkdir -p "$kept"
  find "$soak_folder" -maxdepth 1 -type f -exec cp {} "$kept" \;
  echo "$(basename "$0"): log and figures are in $kept"
}

# start_server ARGUMENT…: starts a server and waits for its first line.
start_server() {
  rm -f "$soak_folder/ready"
  mkfifo "$soak_folder/ready"
  "${server_on[@]}" "$gantry" standalone --data "$soak_folder/data" --nameserver-port "$soak_port" --remoting-port "$((soak_port + 3))" \
    --vip-channel false --grpc-port "$((soak_port + 4))" --http-port "$((soak_port + 5))" "$@" \
    >"$soak_folder/ready" 2>>"$soak_folder/server.log" &
  server_pid=$!
  local line
  # The read end stays open for the server's life.
  exec {ready_fd}<"$soak_folder/ready"
  if ! read -r line <&"$ready_fd"; then
    echo "soak: the server did not start:" >&2
    cat "$soak_folder/server.log" >&2
    exit 1
  fi
  export GANTRY_NAMESERVER="127.0.0.1:$soak_port"
  remoting="127.0.0.1:$((soak_port + 3))"
}

# Ends the server and takes its data away, so that another one can start.
stop_server() {
  kill "$server_pid"
  wait "$server_pid" || true
  server_pid=''
  exec {ready_fd}<&-
  rm -rf "$soak_folder/data"
}

# good NAME SECONDS ARGUMENT…: good clients for so long; their figures go to a file of that name.
good() {
  local name="$1" seconds="$2"
  shift 2
  "${clients_on[@]}" "$gantry" bench produce --output json --topic soak --duration "${seconds}s" --warm-up 1s "$@" >"$soak_folder/$name.json"
}

# note_metrics NAME: the server's counters as they are now, in NAME.metrics.
note_metrics() {
  curl --silent --show-error --max-time 5 "http://127.0.0.1:$((soak_port + 5))/metrics" >"$soak_folder/$1.metrics" ||
    echo "soak: the server did not tell its metrics ($1)" >&2
}

# metric NAME: one of the server's gauges or counters as it is now, all its series together; 0 when there is none.
metric() {
  curl --silent --show-error --fail --max-time 5 "http://127.0.0.1:$((soak_port + 5))/metrics" |
    awk -v name="$1" '$1 == name || index($1, name "{") == 1 { sum += $NF } END { printf "%.0f\n", sum }'
}

# until_true SECONDS WHAT COMMAND…: waits until the command succeeds; fails when it does not in time.
until_true() {
  local what="$2" end=$((SECONDS + $1))
  shift 2
  until "$@"; do
    if ((SECONDS >= end)); then
      echo "soak: $what did not happen in time" >&2
      return 1
    fi
    # Looking costs processor time that the load is measured with.
    sleep 0.3
  done
}

# need_disk GIB: ends the soak when its folder has not so much room.
need_disk() {
  local free_kib
  free_kib="$(df --output=avail -k "$soak_folder" | tail -1)"
  if ((free_kib < $1 * 1024 * 1024)); then
    echo "$(basename "$0"): $1 GiB of disk are needed in $soak_folder, $((free_kib / 1024 / 1024)) are free" >&2
    exit 2
  fi
}

# codes NAME: every code that a message of `good` was refused with, how often, and what the first such answer said.
codes() {
  awk '
    $1 == "\"refusals\":" || $1 == "\"remarks\":" { inside = $1; next }
    $1 ~ /^}/ { inside = "" }
    inside == "\"refusals\":" { code = $1; gsub(/[":]/, "", code); count[code] = $2 + 0 }
    inside == "\"remarks\":" { code = $1; gsub(/[":]/, "", code); sub(/^[^:]*: "/, ""); sub(/",?$/, ""); remark[code] = $0 }
    END { for (code in count) printf "%s %d %s\n", code, count[code], remark[code] }' "$soak_folder/$1.json"
}

# figure NAME KEY: a number out of a file that `good` or `bad` wrote; 0 when it is not there.
figure() {
  awk -v key="\"$2\":" '$1 == key { value = $2 } END { sub(/,$/, "", value); printf "%s\n", value == "" ? 0 : value }' "$soak_folder/$1.json"
}

# bad NAME SECONDS ARGUMENT…: bad peers for so long, beside what follows.
bad() {
  local name="$1" seconds="$2"
  shift 2
  "$gantry" bench peers --output json --address "$remoting" --duration "${seconds}s" "$@" >"$soak_folder/$name.json" &
  helpers+=($!)
}

# Anonymous memory of the server in KiB.
memory_kib() { awk '$1 == "RssAnon:" { print $2 }' "/proc/$server_pid/status"; }

# Processor time of the server so far, in microseconds.
server_cpu_us() { awk -v hz="$(getconf CLK_TCK)" '{ printf "%d\n", ($14 + $15) * 1000000 / hz }' "/proc/$server_pid/stat"; }

# at_least VALUE PERCENT OF: whether VALUE is at least so much of OF.
at_least() { awk -v value="$1" -v percent="$2" -v of="$3" 'BEGIN { exit !(value >= of * percent / 100) }'; }

# percent VALUE OF: how much VALUE is of OF.
percent() { awk -v value="$1" -v of="$2" 'BEGIN { printf "%.1f %%", (of > 0 ? 100 * value / of : 0) }'; }

# What was promised under which load, and whether it held: printed by `conclude`.
verdicts=()
# The load that promises are about.
soak_load='all'

# hold WHAT MEASURED COMMAND…: a promise, what was measured of it, and a command that tells whether it holds.
hold() {
  local what="$1" measured="$2" result=holds
  shift 2
  "$@" || result=FAILS verdict=1
  verdicts+=("$(printf '%-7s %-16s %-74s %s' "$result" "$soak_load" "$what" "$measured")")
}

server_lives() { kill -0 "$server_pid" 2>/dev/null; }

no_panic() { ! grep -q panicked "$soak_folder/server.log"; }

# conclude NAME: the table of promises, the last line, and the exit code.
conclude() {
  soak_load='all'
  hold 'the server runs' - server_lives
  hold 'no panic in its log' - no_panic
  printf '\n%-7s %-16s %-74s %s\n' verdict load promise measured
  printf '%s\n' "${verdicts[@]}"
  if [[ $verdict == 0 ]]; then echo "$1: passed"; else echo "$1: FAILED"; fi
  exit "$verdict"
}
