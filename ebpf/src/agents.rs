//! The arrays that are shared with the running programs as memory: the agents, the hints at rules, the capabilities.
#![allow(unsafe_code, reason = "the array is mapped memory that the kernel programs change while we read it")]
//!
//! Why no safe way: an update through bpf(2) writes a whole element and would undo what the programs add meanwhile to
//! the spent time and the counters. So the array is mapped, and each member is read and written by itself, as an atomic.

use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use agentd_abi::{Agent, Capability, HINT_WORDS, MAX_AGENTS, MAX_CAPABILITIES, RuleKey};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The mapped memory of an array.
struct Mapping {
    base: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the mapping belongs to this value alone until it is dropped, and every access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared references only give atomic access.
unsafe impl Sync for Mapping {}

/// The mapped array of agents.
pub(crate) struct Agents(Mapping);

/// The mapped array of hints: one bit for every hash of a rule's key.
pub(crate) struct Hints(Mapping);

/// The mapped array of capabilities.
pub(crate) struct Capabilities(Mapping);

const STRIDE: usize = size_of::<Agent>();
const _: () = assert!(STRIDE.is_multiple_of(8), "the kernel pads elements to eight bytes");
const _: () = assert!(size_of::<Capability>().is_multiple_of(8), "the kernel pads elements to eight bytes");

macro_rules! members {
    ($($name:ident: $atomic:ty;)*) => {
        /// One element, member by member.
        #[derive(Clone, Copy)]
        pub(crate) struct Slot<'a> {
            element: NonNull<u8>,
            _agents: &'a Agents,
        }

        impl<'a> Slot<'a> {
            $(
                pub(crate) fn $name(self) -> &'a $atomic {
                    let member = self.element.as_ptr().wrapping_add(offset_of!(Agent, $name));
                    // SAFETY: the element lies in the mapping, which lives as long as 'a; the member is aligned, since
                    // elements are aligned to eight; nobody accesses it but through atomics and the kernel.
                    unsafe { <$atomic>::from_ptr(member.cast()) }
                }
            )*
        }
    };
}

members! {
    number: AtomicU32;
    flags: AtomicU32;
    generation: AtomicU64;
    cgroup_id: AtomicU64;
    cpu_limit_ns: AtomicU64;
    cpu_warn_ns: AtomicU64;
    cpu_kill_ns: AtomicU64;
    name_lengths: AtomicU64;
    cpu_spent_ns: AtomicU64;
    exhausted_at_ns: AtomicU64;
    exhausted: AtomicU32;
    warned: AtomicU32;
    denials: AtomicU64;
    suppressed: AtomicU64;
    report_window_ns: AtomicU64;
    reports_in_window: AtomicU32;
}

impl Agents {
    pub(crate) fn map(fd: impl AsFd) -> Result<Self, nix::errno::Errno> {
        Mapping::new(fd, STRIDE * MAX_AGENTS as usize).map(Self)
    }

    /// Panics on a slot that the contract does not have.
    pub(crate) fn slot(&self, slot: u32) -> Slot<'_> {
        assert!(slot > 0 && slot < MAX_AGENTS, "slots run from 1 to {}", MAX_AGENTS - 1);
        let offset = STRIDE * slot as usize;
        // SAFETY: the slot was just checked, so the offset stays inside the mapping.
        let element = unsafe { self.0.base.add(offset) };
        Slot { element, _agents: self }
    }

    /// A copy of one element; members are each exact, but not of the same instant.
    pub(crate) fn read(&self, slot: u32) -> Agent {
        let s = self.slot(slot);
        let order = Ordering::Relaxed;
        Agent {
            number: s.number().load(Ordering::Acquire),
            flags: s.flags().load(order),
            generation: s.generation().load(order),
            cgroup_id: s.cgroup_id().load(order),
            cpu_limit_ns: s.cpu_limit_ns().load(order),
            cpu_warn_ns: s.cpu_warn_ns().load(order),
            cpu_kill_ns: s.cpu_kill_ns().load(order),
            name_lengths: s.name_lengths().load(order),
            cpu_spent_ns: s.cpu_spent_ns().load(order),
            exhausted_at_ns: s.exhausted_at_ns().load(order),
            exhausted: s.exhausted().load(order),
            warned: s.warned().load(order),
            denials: s.denials().load(order),
            suppressed: s.suppressed().load(order),
            report_window_ns: s.report_window_ns().load(order),
            reports_in_window: s.reports_in_window().load(order),
            reserved: 0,
        }
    }

    /// Fills a free slot; the number comes last, so that no program sees half an agent.
    pub(crate) fn write(&self, slot: u32, agent: &Agent) {
        let s = self.slot(slot);
        let order = Ordering::Relaxed;
        s.number().store(0, Ordering::SeqCst);
        s.flags().store(agent.flags, order);
        s.generation().store(agent.generation, order);
        s.cgroup_id().store(agent.cgroup_id, order);
        s.cpu_limit_ns().store(agent.cpu_limit_ns, order);
        s.cpu_warn_ns().store(agent.cpu_warn_ns, order);
        s.cpu_kill_ns().store(agent.cpu_kill_ns, order);
        s.name_lengths().store(agent.name_lengths, order);
        s.cpu_spent_ns().store(agent.cpu_spent_ns, order);
        s.exhausted_at_ns().store(agent.exhausted_at_ns, order);
        s.exhausted().store(agent.exhausted, order);
        s.warned().store(agent.warned, order);
        s.denials().store(agent.denials, order);
        s.suppressed().store(agent.suppressed, order);
        s.report_window_ns().store(agent.report_window_ns, order);
        s.reports_in_window().store(agent.reports_in_window, order);
        s.number().store(agent.number, Ordering::SeqCst);
    }
}

impl Hints {
    pub(crate) fn map(fd: impl AsFd) -> Result<Self, nix::errno::Errno> {
        Mapping::new(fd, size_of::<u64>() * HINT_WORDS as usize).map(Self)
    }

    /// Says that there may be a rule with this key from now on.
    pub(crate) fn set(&self, key: &RuleKey) {
        let (word, mask) = key.hint();
        self.word(word).fetch_or(mask, Ordering::SeqCst);
    }

    /// Says that there are rules with these keys and no others. Nobody may put one meanwhile.
    pub(crate) fn replace(&self, keys: &[RuleKey]) {
        let mut words = vec![0u64; HINT_WORDS as usize];
        for key in keys {
            let (word, mask) = key.hint();
            words[word as usize] |= mask;
        }
        for (word, value) in (0u32..).zip(words) {
            self.word(word).store(value, Ordering::SeqCst);
        }
    }

    fn word(&self, word: u32) -> &AtomicU64 {
        assert!(word < HINT_WORDS, "a hint lies inside its array");
        let at = self.0.base.as_ptr().wrapping_add(size_of::<u64>() * word as usize);
        // SAFETY: the word was just checked to lie in the mapping, which lives as long as self, and is aligned.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }
}

impl Capabilities {
    pub(crate) fn map(fd: impl AsFd) -> Result<Self, nix::errno::Errno> {
        Mapping::new(fd, size_of::<Capability>() * MAX_CAPABILITIES as usize).map(Self)
    }

    /// A copy of one element; members are each exact, but not of the same instant.
    pub(crate) fn read(&self, slot: u32) -> Capability {
        let order = Ordering::SeqCst;
        Capability {
            number: self.half(slot, offset_of!(Capability, number)).load(order),
            state: self.half(slot, offset_of!(Capability, state)).load(order),
            agent: self.half(slot, offset_of!(Capability, agent)).load(order),
            reserved: 0,
            from_ns: self.whole(slot, offset_of!(Capability, from_ns)).load(order),
            until_ns: self.whole(slot, offset_of!(Capability, until_ns)).load(order),
        }
    }

    /// Fills a free slot; the number comes last, so that no program sees half a capability.
    pub(crate) fn write(&self, slot: u32, capability: &Capability) {
        let order = Ordering::SeqCst;
        self.half(slot, offset_of!(Capability, number)).store(0, order);
        self.half(slot, offset_of!(Capability, state)).store(capability.state, order);
        self.half(slot, offset_of!(Capability, agent)).store(capability.agent, order);
        self.whole(slot, offset_of!(Capability, from_ns)).store(capability.from_ns, order);
        self.whole(slot, offset_of!(Capability, until_ns)).store(capability.until_ns, order);
        self.half(slot, offset_of!(Capability, number)).store(capability.number, order);
    }

    /// The number in a slot; 0: it is free.
    pub(crate) fn number(&self, slot: u32) -> &AtomicU32 {
        self.half(slot, offset_of!(Capability, number))
    }

    /// Whether the capability in a slot is in force: `C_…`.
    pub(crate) fn state(&self, slot: u32) -> &AtomicU32 {
        self.half(slot, offset_of!(Capability, state))
    }

    fn half(&self, slot: u32, member: usize) -> &AtomicU32 {
        // SAFETY: `at` gives a place inside the mapping, which lives as long as self; four bytes at the offset of a u32.
        unsafe { AtomicU32::from_ptr(self.at(slot, member).cast()) }
    }

    fn whole(&self, slot: u32, member: usize) -> &AtomicU64 {
        // SAFETY: as above, with eight bytes at the offset of a u64; elements are a multiple of eight bytes.
        unsafe { AtomicU64::from_ptr(self.at(slot, member).cast()) }
    }

    /// Panics on a slot that the contract does not have.
    fn at(&self, slot: u32, member: usize) -> *mut u8 {
        assert!(slot > 0 && slot < MAX_CAPABILITIES, "slots run from 1 to {}", MAX_CAPABILITIES - 1);
        self.0.base.as_ptr().wrapping_add(size_of::<Capability>() * slot as usize + member)
    }
}

impl Mapping {
    fn new(fd: impl AsFd, bytes: usize) -> Result<Self, nix::errno::Errno> {
        let length = NonZeroUsize::new(bytes.next_multiple_of(4096)).unwrap_or(NonZeroUsize::MIN);
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let base =
            unsafe { mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { base: base.cast(), length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every reference into it borrowed from this value.
        let unmapped = unsafe { munmap(self.base.cast(), self.length.get()) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}
