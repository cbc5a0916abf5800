//! The two exports of a module, and what Rust itself needs to run in one: memory and a way to stop.
//!
//! Why no safe way: an allocator is an unsafe trait, and the input is memory that somebody else has written. Only
//! [`reducer!`](crate::reducer) calls what is here.
//!
//! Every step runs in a fresh instance that is thrown away behind it. So the allocator only goes up: it never frees, never
//! looks for a hole, and what a step leaks is nobody's loss. The heap begins where memory ended when the instance was made;
//! it grows by as many pages as are wanted, until the world says no, which is a trap. A panic is a trap too: its message
//! would have nowhere to go.
//!
//! The world writes the input where [`alloc`] said, then calls [`step`] with just that place. Any other place is a trap,
//! so that what is read is memory that was given for it.

#![allow(unsafe_code, reason = "an allocator is an unsafe trait, and the input is written by the world")]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32;
use core::panic::PanicInfo;
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use minicbor::Decode;

use crate::abi::{Context, Event, Output};
use crate::{StepError, run};

/// Bytes of a page of WASM memory.
const PAGE: usize = 65536;

/// The place for the input, from `alloc` to `step`; null where there is none.
static INPUT: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static INPUT_LEN: AtomicUsize = AtomicUsize::new(0);

/// Makes room for an input of that many bytes, and says where.
pub fn alloc(len: i32) -> i32 {
    let Ok(len) = usize::try_from(len) else { wasm32::unreachable() };
    let room = alloc::vec![0_u8; len].leak().as_mut_ptr();
    INPUT.store(room, Relaxed);
    INPUT_LEN.store(len, Relaxed);
    // Pointers have 32 bits here.
    (room.expose_provenance() as u32).cast_signed()
}

/// Takes the step whose input is in that room; returns the place of the output as `ptr << 32 | len`.
pub fn step<S, F>(ptr: i32, len: i32, step: F) -> i64
where
    S: for<'b> Decode<'b, ()>,
    F: FnOnce(&Context, Option<S>, &Event) -> Result<Output, StepError>,
{
    // Taken out, so that a second step in one instance finds nothing.
    let (room, room_len) = (INPUT.swap(ptr::null_mut(), Relaxed), INPUT_LEN.load(Relaxed));
    let claimed = (ptr.cast_unsigned() as usize, len.cast_unsigned() as usize);
    if room.is_null() || claimed != (room.addr(), room_len) {
        wasm32::unreachable();
    }
    // SAFETY: `alloc` made `room_len` initialised bytes at `room` and leaked them; they are never freed, and the swap
    // above makes this the only reference. The world writes while no code of the module runs, hence not during its life.
    let input = unsafe { slice::from_raw_parts(room, room_len) };
    let Ok(output) = run(input, step) else { wasm32::unreachable() };
    let output = output.leak();
    let (place, len) = (output.as_ptr().expose_provenance() as u64, output.len() as u64);
    (place << 32 | len).cast_signed()
}

/// The allocator that only goes up.
struct Bump {
    /// The first free byte; 0 before the first allocation.
    next: AtomicUsize,
    /// The end of memory.
    end: AtomicUsize,
}

#[global_allocator]
static HEAP: Bump = Bump { next: AtomicUsize::new(0), end: AtomicUsize::new(0) };

impl Bump {
    /// The address of so much room; `None` if the world gives no more.
    fn place(&self, layout: Layout) -> Option<usize> {
        if self.next.load(Relaxed) == 0 {
            let end = wasm32::memory_size::<0>().checked_mul(PAGE)?;
            self.next.store(end, Relaxed);
            self.end.store(end, Relaxed);
        }
        let start = self.next.load(Relaxed).checked_next_multiple_of(layout.align())?;
        let stop = start.checked_add(layout.size())?;
        let end = self.end.load(Relaxed);
        if stop > end {
            let pages = (stop - end).div_ceil(PAGE);
            let new_end = end.checked_add(pages.checked_mul(PAGE)?)?;
            if wasm32::memory_grow::<0>(pages) == usize::MAX {
                return None;
            }
            self.end.store(new_end, Relaxed);
        }
        self.next.store(stop, Relaxed);
        Some(start)
    }
}

// SAFETY: `place` hands out memory that the engine has given, aligned, and moves `next` behind it; `next` never goes back,
// so no two blocks overlap and none is ever given twice. A module has one thread, so nothing comes between load and store.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.place(layout).map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    /// Memory is zeroes when it is new, and here it always is.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.place(layout).map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    wasm32::unreachable()
}
