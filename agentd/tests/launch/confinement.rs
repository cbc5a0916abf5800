//! What filters and Landlock refuse by themselves, without kernel programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use agentd::launch::{Landlock, Seccomp, landlock_abi};

use crate::lab::Lab;

fn python_denied(script: &str) -> Lab {
    let preamble = "import ctypes, errno, os, socket, sys\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        def call(number, *args):\n\
        \x20   ctypes.set_errno(0)\n\
        \x20   libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])\n\
        \x20   return errno.errorcode.get(ctypes.get_errno(), 'OK')\n\
        def attempt(what):\n\
        \x20   try:\n\
        \x20       what(); return 'OK'\n\
        \x20   except OSError as e:\n\
        \x20       return errno.errorcode[e.errno]\n";
    Lab::python(&format!("{preamble}{script}"))
}

#[test]
fn the_small_filters_refuse_what_no_hook_sees() {
    let script = "print(call(425, 1, 0), call(426, 0), call(427, 0), call(248, 0), call(249, 0), call(250, 0), attempt(lambda: socket.socket(socket.AF_VSOCK)))";
    let mut lab = python_denied(script);
    lab.request.confinement.seccomp = Seccomp::UnseenAndUring;
    assert!(lab.run().stdout.starts_with("EPERM EPERM EPERM EPERM EPERM EPERM "));
    let mut lab = python_denied(script);
    lab.request.confinement.seccomp = Seccomp::Unseen;
    let answers = lab.run().stdout;
    let answers: Vec<&str> = answers.split_whitespace().collect();
    assert!(answers[..3].iter().all(|answer| *answer != "EPERM"), "io_uring is left to the hook: {answers:?}");
    assert_eq!(answers[3..6], ["EPERM"; 3], "keys");
    let lab = python_denied("print(call(425, 1, 0), open('/proc/self/status').read().split('Seccomp:')[1].split()[0])");
    // Without a filter the kernel itself answers, to a null pointer.
    assert_eq!(lab.run().stdout, "EFAULT 0\n");
}

#[test]
fn the_fallback_filter_refuses_what_the_kernel_programs_would() {
    let numbers = [
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("chroot", libc::SYS_chroot),
        ("pivot_root", libc::SYS_pivot_root),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("fsopen", libc::SYS_fsopen),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("setns", libc::SYS_setns),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("process_madvise", libc::SYS_process_madvise),
        ("init_module", libc::SYS_init_module),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("sched_setattr", libc::SYS_sched_setattr),
    ];
    let list = numbers.iter().map(|(name, number)| format!("({name:?},{number})")).collect::<Vec<_>>().join(",");
    let script = format!(
        "print([name for name, number in [{list}] if call(number, 0, 0, 0, 0, 0) != 'EPERM'])\n\
         print(call({unshare}, {userns}), call({unshare}, 0x80), call({unshare}, 0x200), call({clone}, {userns} | 17))\n\
         print(call({clone3}, 0, 0), call({getpid} | 0x40000000))\n\
         for policy in (0, 3, 5, 1, 2, 6, 7, 0x40000001):\n\
         \x20   print(policy, call({scheduler}, 0, policy, ctypes.byref(ctypes.c_int(0))))\n",
        unshare = libc::SYS_unshare,
        userns = libc::CLONE_NEWUSER,
        clone = libc::SYS_clone,
        clone3 = libc::SYS_clone3,
        getpid = libc::SYS_getpid,
        scheduler = libc::SYS_sched_setscheduler,
    );
    let mut lab = python_denied(&script);
    lab.request.confinement.seccomp = Seccomp::Fallback;
    let outcome = lab.run();
    assert_eq!(
        outcome.stdout,
        "[]\nEPERM EPERM OK EPERM\nENOSYS ENOSYS\n\
         0 OK\n3 OK\n5 OK\n1 EPERM\n2 EPERM\n6 EPERM\n7 EPERM\n1073741825 EPERM\n",
        "{outcome:?}"
    );
}

#[test]
fn the_fallback_filter_lets_only_sockets_with_rules_through() {
    let script = "\
for family, kind, protocol in [(1, 1, 0), (1, 2, 0), (1, 5, 0), (2, 1, 0), (2, 1, 6), (2, 2, 17), (10, 1, 0), (10, 2 | 0o2000000, 0), (16, 3, 0)]:\n\
\x20   print(attempt(lambda: socket.socket(family, kind, protocol)), end=' ')\n\
print()\n\
for family, kind, protocol in [(2, 3, 0), (2, 3, 1), (2, 1, 262), (2, 2, 136), (2, 2, 1), (10, 3 | 0o4000, 58), (10, 1, 132), (16, 3, 12), (17, 3, 0), (38, 5, 0), (40, 1, 0), (2, 10, 0)]:\n\
\x20   print(attempt(lambda: socket.socket(family, kind, protocol)), end=' ')\n\
print()\n\
s = socket.socket()\n\
print(attempt(lambda: s.sendto(b'x', 0x20000000, ('127.0.0.1', 9))), attempt(lambda: s.sendmsg([b'x'], [], 0x20000000, ('127.0.0.1', 9))))\n\
print(call(307, s.fileno(), 0, 0, 0x20000000))\n\
a, b = socket.socketpair()\n\
a.sendmsg([b'fine'])\n\
print(b.recv(10))\n";
    let mut lab = python_denied(script);
    lab.request.confinement.seccomp = Seccomp::Fallback;
    let outcome = lab.run();
    let all = |word: &str, times: usize| format!("{}\n", format!("{word} ").repeat(times));
    let expected = format!("{}{}EPERM EPERM\nEPERM\nb'fine'\n", all("OK", 9), all("EPERM", 12));
    assert_eq!(outcome.stdout, expected, "{outcome:?}");
}

#[test]
fn real_work_goes_on_under_the_fallback_filter() {
    let mut lab = Lab::sh(
        "python3 -c 'import threading, subprocess; t = threading.Thread(target=lambda: print(1)); t.start(); t.join(); \
         print(subprocess.check_output([\"echo\", \"2\"]).decode())' && git init -q repo && cd repo && echo x > f && \
         git add f && git -c user.name=a -c user.email=b commit -qm c && strace -f -o trace true && test -s trace && echo ok",
    );
    lab.request.spec.env.push(("HOME".into(), lab.work().to_str().unwrap().into()));
    lab.request.confinement.seccomp = Seccomp::Fallback;
    let outcome = lab.run();
    assert!(outcome.stdout.ends_with("ok\n"), "{outcome:?}");
}

fn system(lab: Lab) -> Lab {
    let readable = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/proc"];
    let lab = readable
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .fold(lab, |lab, path| lab.rule(path, "read,exec", ""));
    let work = lab.work();
    lab.rule(work.to_str().unwrap(), "all", "").rule("/dev/null", "read,write", "").rule("/tmp", "all", "")
}

#[test]
fn landlock_allows_what_the_rules_say_and_nothing_else() {
    let outside = PathBuf::from(format!("/opt/agentd-test-landlock-{}", std::process::id()));
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    for (name, mode) in [("secret", 0o666), ("single", 0o666), ("tool", 0o755)] {
        fs::copy("/bin/true", outside.join(name)).unwrap();
        fs::set_permissions(outside.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let script = format!(
        "cd {out} || exit 1; for f in secret single; do (cat $f >/dev/null) && echo read $f; (: >> $f) && echo wrote $f; done; \
         (: > new) || echo no new; ls . >/dev/null || echo no list; ./tool || echo no tool; mkdir d || echo no mkdir; \
         rm secret || echo no rm; cat /etc/passwd >/dev/null || echo no passwd; cd {work}; \
         cp /bin/true tool; ./tool && echo tool ran; mkdir d && mv d e && rmdir e && echo made; \
         echo a > /tmp/a && mkdir sub && cp /tmp/a sub/a && mkdir t && echo x > t/x && mv t/x sub/x && echo moved; \
         (exec 3<> /dev/null) && echo null; test -t 1 || echo pipes",
        out = outside.display(),
        work = "$OLDPWD",
    );
    let mut lab = Lab::sh(&script);
    lab.request.confinement.landlock = Landlock::On;
    let lab = system(lab).rule(outside.join("single").to_str().unwrap(), "read", "");
    let gate = lab.launch();
    assert!(landlock_abi().is_some(), "this kernel has no Landlock");
    assert_eq!(gate.landlock_abi(), landlock_abi());
    drop(gate);
    let outcome = lab.run();
    fs::remove_dir_all(outside).unwrap();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let expected = [
        "read single",
        "no new",
        "no list",
        "no tool",
        "no mkdir",
        "no rm",
        "no passwd",
        "tool ran",
        "made",
        "moved",
        "null",
        "pipes",
    ];
    assert_eq!(lines, expected, "{outcome:?}");
}

#[test]
fn landlock_closes_abstract_sockets_and_signals_to_the_outside() {
    assert!(landlock_abi().is_some_and(|abi| abi >= 6), "this kernel's Landlock has no scopes");
    use std::os::linux::net::SocketAddrExt;
    let name = format!("agentd-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let script = format!("print(attempt(lambda: socket.socket(socket.AF_UNIX).connect('\\0{name}')))");
    let open = python_denied(&script);
    assert_eq!(open.run().stdout, "OK\n", "the positive twin");
    let mut lab = system(python_denied(&script)).rule("/etc", "read", "");
    lab.request.confinement.landlock = Landlock::On;
    let outcome = lab.run();
    assert_eq!(outcome.stdout, "EPERM\n", "{outcome:?}");
}
