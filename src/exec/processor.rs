//! The processor's own random bits, hidden from a job: it is told that there are none, and takes the system's.
//!
//! Programs ask the processor what it can (`cpuid`) before they ask it for random bits, and where it has none they ask the system.
//! Where the processor can make `cpuid` fault, that question is answered here. Each program that begins has to be
//! made to fault anew, by a call that is put into its mouth before its first instruction.
//! Sources: `arch_prctl(2)`, `ARCH_CPUID`; ptrace(2); Intel's manual of instructions, CPUID.

#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::arch::x86_64::{__cpuid_count, CpuidResult};
use std::io;
use std::ptr;

use super::memory::Memory;
use super::tracer::ask;

/// `ARCH_CPUID`, with which `cpuid` is switched off.
const ARCH_CPUID: u64 = 0x1012;
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const CPUID: [u8; 2] = [0x0f, 0xa2];
const NT_PRSTATUS: usize = 1;
/// In the answer to leaf 1, register `ecx`: there is `rdrand`.
const RDRAND: u32 = 1 << 30;
/// In the answer to leaf 7, register `ebx`: there is `rdseed`.
const RDSEED: u32 = 1 << 18;

/// Lets the question fault from now on in a thread that has stopped before the first instruction of its program.
///
/// # Errors
///
/// What the system says: most often that this processor cannot do that.
pub(super) fn hide(pid: i32) -> io::Result<()> {
    let before = registers(pid)?;
    let place = usize::try_from(before.rip).map_err(io::Error::other)?;
    let mut word = [0; 8];
    let there = Memory::new(pid, false).bytes::<8>(before.rip).ok_or(io::ErrorKind::InvalidData)?;
    word.copy_from_slice(&there);
    word[..2].copy_from_slice(&SYSCALL);
    poke(pid, place, word)?;
    let call = libc::user_regs_struct {
        rax: libc::SYS_arch_prctl.cast_unsigned(),
        orig_rax: u64::MAX,
        rdi: ARCH_CPUID,
        rsi: 0,
        ..before
    };
    let mut stepped = Ok(());
    let mut answer = before;
    // The first step may only lead out of the call by which the program was executed, which sets a register.
    for _ in 0..2 {
        set_registers(pid, call)?;
        stepped = step(pid);
        answer = registers(pid)?;
        if stepped.is_err() || answer.rip != before.rip {
            break;
        }
    }
    let is_made = answer.rip == before.rip + SYSCALL.len() as u64;
    let answer = if is_made { answer.rax.cast_signed() } else { -i64::from(libc::EIO) };
    poke(pid, place, there)?;
    set_registers(pid, before)?;
    stepped?;
    if answer == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(i32::try_from(-answer).unwrap_or(libc::EIO))) }
}

/// Answers the question of a thread that has faulted by it. Returns whether that was why it faulted.
pub(super) fn answer(pid: i32) -> bool {
    let answered = || -> io::Result<bool> {
        let asked = registers(pid)?;
        if Memory::new(pid, false).bytes::<2>(asked.rip) != Some(CPUID) {
            return Ok(false);
        }
        #[expect(clippy::cast_possible_truncation, reason = "the halves of the registers that the question is in")]
        let (leaf, part) = (asked.rax as u32, asked.rcx as u32);
        let CpuidResult { eax, mut ebx, mut ecx, edx } = __cpuid_count(leaf, part);
        match leaf {
            1 => ecx &= !RDRAND,
            7 if part == 0 => ebx &= !RDSEED,
            _ => {}
        }
        let told = libc::user_regs_struct {
            rax: eax.into(),
            rbx: ebx.into(),
            rcx: ecx.into(),
            rdx: edx.into(),
            rip: asked.rip + CPUID.len() as u64,
            ..asked
        };
        set_registers(pid, told)?;
        Ok(true)
    };
    answered().unwrap_or(false)
}

/// Lets a thread execute one instruction, and waits until it has.
fn step(pid: i32) -> io::Result<()> {
    ask(libc::PTRACE_SINGLESTEP, pid, 0, 0)?;
    let mut status = 0;
    // SAFETY: the status is written into a variable of this function.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    if waited == pid && libc::WIFSTOPPED(status) { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
}

fn poke(pid: i32, place: usize, word: [u8; 8]) -> io::Result<()> {
    let word = usize::try_from(u64::from_ne_bytes(word)).map_err(io::Error::other)?;
    ask(libc::PTRACE_POKETEXT, pid, place, word).map(drop)
}

fn registers(pid: i32) -> io::Result<libc::user_regs_struct> {
    // SAFETY: these are numbers, of which all are valid.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let length = size_of::<libc::user_regs_struct>();
    let mut part = libc::iovec { iov_base: ptr::from_mut(&mut registers).cast(), iov_len: length };
    ask(libc::PTRACE_GETREGSET, pid, NT_PRSTATUS, &raw mut part as usize)?;
    // A 32-bit program has fewer of them, and is left alone.
    if part.iov_len == length { Ok(registers) } else { Err(io::ErrorKind::Unsupported.into()) }
}

fn set_registers(pid: i32, mut registers: libc::user_regs_struct) -> io::Result<()> {
    let length = size_of::<libc::user_regs_struct>();
    let part = libc::iovec { iov_base: ptr::from_mut(&mut registers).cast(), iov_len: length };
    ask(libc::PTRACE_SETREGSET, pid, NT_PRSTATUS, &raw const part as usize).map(drop)
}
