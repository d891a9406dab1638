//! System calls without the C library.
//!
//! A process that shares this one's memory also shares the place where the C
//! library keeps the last error of a thread, so it must not call the library.

#![expect(
    clippy::many_single_char_names,
    clippy::cast_possible_truncation,
    reason = "six registers, as wide as the arguments"
)]
#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::arch::asm;

/// Calls the kernel; returns what it answers, or the number of the error.
///
/// # Safety
///
/// As the call that `number` names: pointers among `arguments` must be good for what it does with them.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> Result<usize, i32> {
    let [a, b, c, d, e, f] = arguments;
    let answer: isize;
    // SAFETY: the convention of Linux on x86-64; the caller answers for what the call itself does.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => answer, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    decode(answer)
}

/// Calls the kernel; returns what it answers, or the number of the error.
///
/// # Safety
///
/// As the call that `number` names: pointers among `arguments` must be good for what it does with them.
#[cfg(target_arch = "aarch64")]
#[inline]
pub(super) unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> Result<usize, i32> {
    let [a, b, c, d, e, f] = arguments;
    let answer: isize;
    // SAFETY: the convention of Linux on AArch64; the caller answers for what the call itself does.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => answer, in("x1") b, in("x2") c, in("x3") d,
            in("x4") e, in("x5") f, options(nostack));
    }
    decode(answer)
}

/// The kernel answers with the negated number of an error, which is at most 4095.
#[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "the range says what it is")]
const fn decode(answer: isize) -> Result<usize, i32> {
    if answer < 0 && answer >= -4095 { Err(-answer as i32) } else { Ok(answer as usize) }
}
