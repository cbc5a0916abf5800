set -eu
cargo build
cargo test --lib 2>&1 | tee tests
cargo run --quiet >answer
cargo clean -p app
cargo build --quiet
cargo metadata --format-version 1 --offline >/dev/null
