//! The small library and its tests that the jobs build, change and test.

pub fn sum(a: i32, b: i32) -> i32 {
    a + b
}

#[cfg(test)]
mod tests {
    const TWO: i32 = include!(concat!(env!("OUT_DIR"), "/two.rs"));

    #[test]
    fn sums() {
        assert_eq!(super::sum(40, TWO), mac::answer!());
        let handle = std::thread::spawn(|| super::sum(1, 1));
        assert_eq!(handle.join().unwrap(), TWO);
    }
}
