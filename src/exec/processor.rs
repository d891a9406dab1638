//! What a job asks the processor itself for, given in its place: random bits, and the count of cycles.
//!
//! No system call is made for either. An instruction for random bits is replaced by one that stops the thread, in every program and
//! library as it comes into memory where it can be executed; its file stays as it is. The same bytes are parts of other
//! instructions about once in a million, so those before are decoded up to there. The instruction for the cycles can be made to
//! fault by the kernel.
//! Sources: Intel's manual of instructions, RDRAND, RDSEED, RDTSC, RDTSCP; ptrace(2); prctl(2), `PR_SET_TSC`.

#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::io;
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

use super::entropy::Streams;
use super::memory::Memory;
use super::tracer::ask;

/// The instruction that stops, of one byte.
const STOP: u8 = 0xcc;
/// `rdrand` and `rdseed` begin with these bytes, after what widens them, and name the register in the third.
const BITS: [u8; 2] = [0x0f, 0xc7];
const BITS_BYTES: usize = 3;
/// The third byte of `rdrand` is not below this one, and that of `rdseed` not below eight more.
const REGISTERS_FROM: u8 = 0xf0;
const RDTSC: [u8; 2] = [0x0f, 0x31];
const RDTSCP: [u8; 3] = [0x0f, 0x01, 0xf9];
/// Flags that say whether there were any bits, and those that are zero then.
const CARRY: u64 = 1;
const CLEARED: u64 = 0x8d4;
/// So much of a program is looked through at a time, in bytes.
const PART: usize = 1 << 20;
const PAGE: u64 = 4096;
/// Decoding begins so many bytes before what is to be told, and fewer by one each of several times.
const LEAD: usize = 128;
const BEGINNINGS: usize = 4;

/// Plants stops in all that a thread that has stopped could execute.
pub(super) fn plant(pid: i32) {
    mapped(pid).into_iter().for_each(|range| plant_in(pid, range));
}

/// Plants stops in what a thread has just made executable, by the call out of which it comes.
pub(super) fn plant_new(pid: i32) {
    let Ok(after) = registers(pid) else { return };
    let answer = after.rax.cast_signed();
    if (-4095..0).contains(&answer) {
        return;
    }
    let start = if after.orig_rax == libc::SYS_mmap.cast_unsigned() { after.rax } else { after.rdi };
    let made = start..start.saturating_add(after.rsi).next_multiple_of(PAGE);
    for range in mapped(pid) {
        let (from, to) = (range.start.max(made.start), range.end.min(made.end));
        if from < to {
            plant_in(pid, from..to);
        }
    }
}

/// Gives random bits to a thread that has come to a planted stop. Returns whether that was why it stopped.
pub(super) fn answer_bits(pid: i32, streams: &Streams) -> bool {
    let answered = || -> Option<()> {
        let mut now = registers(pid).ok()?;
        let place = now.rip.checked_sub(1)?;
        let memory = Memory::new(pid, false);
        let [stop, second, third] = memory.bytes::<3>(place)?;
        if stop != STOP || second != BITS[1] || third < REGISTERS_FROM {
            return None;
        }
        let mut bytes = [0; 8];
        streams.draw(pid)?.fill(&mut bytes);
        let bits = u64::from_ne_bytes(bytes);
        let before = memory.bytes::<1>(place - 1).map_or(0, |[before]| before);
        // One byte before it may say that all 64 bits are wanted, or one of the later registers.
        let (is_wide, is_late) =
            if before & 0xf0 == 0x40 { (before & 8 != 0, before & 1 != 0) } else { (false, false) };
        let register = register(&mut now, third & 7 | if is_late { 8 } else { 0 });
        *register = match before {
            0x66 => *register & !0xffff | bits & 0xffff,
            _ if is_wide => bits,
            _ => bits & 0xffff_ffff,
        };
        now.eflags = now.eflags & !CLEARED | CARRY;
        now.rip = place + BITS_BYTES as u64;
        set_registers(pid, &now).ok()
    };
    answered().is_some()
}

/// Tells a thread that has faulted how many cycles there were, by `cycles`. Returns whether that was why it faulted.
pub(super) fn answer_cycles(pid: i32, cycles: impl FnOnce() -> Option<u64>) -> bool {
    let answered = || -> Option<()> {
        let mut now = registers(pid).ok()?;
        let memory = Memory::new(pid, false);
        let is_plain = memory.bytes::<2>(now.rip)? == RDTSC;
        if !is_plain && memory.bytes::<3>(now.rip)? != RDTSCP {
            return None;
        }
        let cycles = cycles()?;
        (now.rax, now.rdx) = (cycles & 0xffff_ffff, cycles >> 32);
        if !is_plain {
            // Which processor it was: the first.
            now.rcx = 0;
        }
        now.rip += if is_plain { RDTSC.len() } else { RDTSCP.len() } as u64;
        set_registers(pid, &now).ok()
    };
    answered().is_some()
}

/// Returns whether a thread that has stopped is in the program that loads others.
pub(super) fn is_in_loader(pid: i32) -> bool {
    let Ok(now) = registers(pid) else { return false };
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let holds = |line: &&str| range_of(line).is_some_and(|(range, _)| range.contains(&now.rip));
    let name = maps.lines().find(holds).and_then(|line| line.rsplit('/').next()).unwrap_or_default();
    name.starts_with("ld-") || name.starts_with("ld.so")
}

/// Returns where a line of a process's map says that memory lies, and what else it says.
fn range_of(line: &str) -> Option<(Range<u64>, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some((address(start)?..address(end)?, rest))
}

/// Returns where memory lies that a process can execute and that no file is changed by.
fn mapped(pid: i32) -> Vec<Range<u64>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let is_code = |rest: &str| rest.as_bytes().get(2..4) == Some(b"xp");
    maps.lines().filter_map(range_of).filter(|(_, rest)| is_code(rest)).map(|(range, _)| range).collect()
}

fn plant_in(pid: i32, range: Range<u64>) {
    let memory = Memory::new(pid, false);
    let mut part = vec![0; PART];
    let (mut start, mut known) = (range.start, 0);
    loop {
        let length = usize::try_from(range.end - start).unwrap_or(PART).min(PART);
        let Some(read) = memory.fill(start, &mut part[..length]) else { return };
        for at in bits_in(&part[..read]).filter(|at| *at >= known) {
            // A failure leaves the processor's own bits, which shows.
            let _ = poke(pid, start + at as u64);
        }
        if start + read as u64 >= range.end || read <= LEAD {
            return;
        }
        // What is decoded before an instruction is to be there again. Of the last bytes no instruction was told yet.
        start += (read - LEAD) as u64;
        known = LEAD + 1 - BITS_BYTES;
    }
}

/// Returns where instructions for random bits begin, after what widens them.
fn bits_in(code: &[u8]) -> impl Iterator<Item = usize> {
    let looks_like_one = |bytes: &[u8]| bytes[..2] == BITS && bytes[2] >= REGISTERS_FROM;
    let candidates = code.windows(3).enumerate().filter(move |(_, bytes)| looks_like_one(bytes)).map(|(at, _)| at);
    candidates.filter(|at| is_instruction(code, *at))
}

/// Returns whether what looks like an instruction for random bits is one: whoever begins to decode a little before comes to
/// it, wherever he begins. Instructions have several lengths, but soon all who read them agree.
fn is_instruction(code: &[u8], at: usize) -> bool {
    (0..BEGINNINGS).all(|later| {
        let from = at.saturating_sub(LEAD - later);
        let part = &code[from..code.len().min(at + BITS_BYTES)];
        let mut decoder = Decoder::with_ip(64, part, from as u64, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if instruction.next_ip() > at as u64 {
                return matches!(instruction.mnemonic(), Mnemonic::Rdrand | Mnemonic::Rdseed);
            }
        }
        false
    })
}

/// Puts a stop into the memory of a thread that has stopped.
fn poke(pid: i32, place: u64) -> io::Result<()> {
    // Words are written, and one at a multiple of its length lies within a page.
    let start = place & !7;
    let mut word = Memory::new(pid, false).bytes::<8>(start).ok_or(io::ErrorKind::InvalidData)?;
    word[usize::try_from(place - start).unwrap_or_default()] = STOP;
    let address = usize::try_from(start).map_err(io::Error::other)?;
    let word = usize::try_from(u64::from_ne_bytes(word)).map_err(io::Error::other)?;
    ask(libc::PTRACE_POKETEXT, pid, address, word).map(drop)
}

/// Returns the register with this number.
fn register(all: &mut libc::user_regs_struct, number: u8) -> &mut u64 {
    match number {
        0 => &mut all.rax,
        1 => &mut all.rcx,
        2 => &mut all.rdx,
        3 => &mut all.rbx,
        4 => &mut all.rsp,
        5 => &mut all.rbp,
        6 => &mut all.rsi,
        7 => &mut all.rdi,
        8 => &mut all.r8,
        9 => &mut all.r9,
        10 => &mut all.r10,
        11 => &mut all.r11,
        12 => &mut all.r12,
        13 => &mut all.r13,
        14 => &mut all.r14,
        _ => &mut all.r15,
    }
}

/// Returns the registers of a thread that has stopped, of a 32-bit program too.
fn registers(pid: i32) -> io::Result<libc::user_regs_struct> {
    // SAFETY: these are numbers, of which all are valid.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    ask(libc::PTRACE_GETREGS, pid, 0, &raw mut registers as usize)?;
    Ok(registers)
}

fn set_registers(pid: i32, registers: &libc::user_regs_struct) -> io::Result<()> {
    ask(libc::PTRACE_SETREGS, pid, 0, std::ptr::from_ref(registers) as usize).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_for_random_bits_are_found_and_their_neighbours_are_not() {
        // rdrand rax, rdseed ecx, cmpxchg8b [rsi], vmptrld [rsi], and one that is cut off.
        let code = [
            0x48, 0x0f, 0xc7, 0xf0, 0x0f, 0xc7, 0xf9, 0x0f, 0xc7, 0x0e, 0x0f, 0xc7, 0x36, 0x0f, 0xc7, 0xf1, 0x0f, 0xc7,
        ];
        assert_eq!(bits_in(&code).collect::<Vec<_>>(), [1, 4, 13]);
        // mov eax, 0x00f0c70f; the same in a longer text.
        let constant = [0xb8, 0x0f, 0xc7, 0xf0, 0x00];
        assert_eq!(bits_in(&constant).count(), 0);
        let long = [&[0x90; 200], &constant[..], &[0x66, 0x0f, 0xc7, 0xf3]].concat();
        assert_eq!(bits_in(&long).collect::<Vec<_>>(), [206]);
    }
}
