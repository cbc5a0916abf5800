//! Compiled code that was kept is taken back, and nothing else is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each file of tests uses a part")]
mod common;

use agentd_wasm::{CacheError, CacheKey, Engine};
use common::{engine, module, step};

#[test]
fn kept_code_runs_as_the_compiled_one() {
    let key = CacheKey::new([1; 32]);
    let compiled = module("(i64.or (i64.const 0x40000000000) (i64.extend_i32_u (local.get $len)))");
    let kept = compiled.to_cache(&key).unwrap();
    let loaded = Engine::new().unwrap().from_cache(&key, compiled.hash(), &kept).unwrap();
    assert_eq!(loaded.hash(), compiled.hash());
    assert_eq!(step(&loaded, b"four"), step(&compiled, b"four"));
}

#[test]
fn kept_code_that_is_not_ours_is_never_loaded() {
    let key = CacheKey::new([1; 32]);
    let (one, other) = (module("(i64.const 1)"), module("(i64.const 2)"));
    let kept = one.to_cache(&key).unwrap();
    let refused = |key: &CacheKey, hash: &[u8; 32], kept: &[u8]| {
        matches!(engine().from_cache(key, hash, kept), Err(CacheError::NotOurs))
    };
    assert!(refused(&CacheKey::new([2; 32]), one.hash(), &kept), "another key");
    assert!(refused(&key, other.hash(), &kept), "another module");
    assert!(refused(&key, one.hash(), &kept[..kept.len() - 1]), "cut short");
    assert!(refused(&key, one.hash(), &kept[..31]), "no MAC");
    assert!(refused(&key, one.hash(), b""), "empty");
    for at in [0, 31, 32, 100, kept.len() / 2, kept.len() - 1] {
        let mut changed = kept.clone();
        changed[at] ^= 1;
        assert!(refused(&key, one.hash(), &changed), "a bit of byte {at}");
    }
}

#[test]
fn a_key_is_not_printed() {
    assert_eq!(format!("{:?}", CacheKey::new([7; 32])), "CacheKey(…)");
}
