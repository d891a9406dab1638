//! Every call that names a path, made as its page in the manual says, each with a file of its own.
//!
//! Programs seldom make the rarer ones, and no library makes all, so they are made by number: once as this machine's own
//! programs do and once, on x86-64, as 32-bit ones.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_long;

use super::filter::{Deed, ways};
use super::isolated_tests::{Bench, compiled, say_untested};
use super::*;

/// What lies at the path of a call before it is made.
enum There {
    File,
    Directory,
    Nothing,
}

/// The name of a call, its numbers on this machine and among 32-bit programs, its arguments, and what is to be seen of its path.
///
/// Of the arguments `PATH` is the path and `TO` the one that it moves or links to, `LIST` an open directory, `*` the working
/// directory, `@` some empty room, and `#` begins a number. Behind a bar stands what is to be seen of `TO`.
type Row = (&'static str, Option<c_long>, &'static [c_long], There, &'static str, &'static str);

/// The number of a call that only x86-64 has beside its successor.
const fn old(number: c_long) -> Option<c_long> {
    if cfg!(target_arch = "x86_64") { Some(number) } else { None }
}

const CALLS: &[Row] = {
    use There::{Directory, File, Nothing};
    &[
        ("open", old(2), &[5], File, "PATH #0", "read"),
        ("openat", Some(libc::SYS_openat), &[295], File, "* PATH #0", "read"),
        ("openat2", Some(libc::SYS_openat2), &[437], File, "* PATH @ #24", "read"),
        ("creat", old(85), &[8], Nothing, "PATH #0600", "written"),
        ("execve", Some(libc::SYS_execve), &[11], File, "PATH #0 #0", "read executed"),
        ("execveat", Some(libc::SYS_execveat), &[358], File, "* PATH #0 #0 #0", "read executed"),
        ("stat", old(4), &[18, 106, 195], File, "PATH @", "examined"),
        ("lstat", old(6), &[84, 107, 196], File, "PATH @", "examined"),
        ("newfstatat", Some(libc::SYS_newfstatat), &[300], File, "* PATH @ #0", "examined"),
        ("statx", Some(libc::SYS_statx), &[383], File, "* PATH #0 #2047 @", "examined"),
        ("access", old(21), &[33], File, "PATH #0", "examined"),
        ("faccessat", Some(libc::SYS_faccessat), &[307], File, "* PATH #0", "examined"),
        ("faccessat2", Some(libc::SYS_faccessat2), &[439], File, "* PATH #0 #0", "examined"),
        ("getxattr", Some(libc::SYS_getxattr), &[229], File, "PATH user.x @ #16", "examined"),
        ("lgetxattr", Some(libc::SYS_lgetxattr), &[230], File, "PATH user.x @ #16", "examined"),
        ("getxattrat", Some(464), &[464], File, "* PATH #0 user.x @ #16", "examined"),
        ("listxattr", Some(libc::SYS_listxattr), &[232], File, "PATH @ #16", "examined"),
        ("llistxattr", Some(libc::SYS_llistxattr), &[233], File, "PATH @ #16", "examined"),
        ("listxattrat", Some(465), &[465], File, "* PATH #0 @ #16", "examined"),
        ("file_getattr", Some(468), &[468], File, "* PATH @ #24 #0", "examined"),
        ("statfs", Some(libc::SYS_statfs), &[99], File, "PATH @", "examined"),
        ("statfs64", None, &[268], File, "PATH #84 @", "examined"),
        ("name_to_handle_at", Some(libc::SYS_name_to_handle_at), &[341], File, "* PATH @ @ #0", "examined"),
        ("inotify_add_watch", Some(libc::SYS_inotify_add_watch), &[292], File, "#-1 PATH #1", "examined"),
        ("open_tree", Some(428), &[428], File, "* PATH #0", "examined"),
        ("open_tree_attr", Some(467), &[467], File, "* PATH #0 #0 #0", "examined"),
        ("readlink", old(89), &[85], File, "PATH @ #16", "read"),
        ("readlinkat", Some(libc::SYS_readlinkat), &[305], File, "* PATH @ #16", "read"),
        ("getdents", old(78), &[141], Directory, "LIST @ #4096", "listed examined"),
        ("getdents64", Some(libc::SYS_getdents64), &[220], Directory, "LIST @ #4096", "listed examined"),
        ("chdir", Some(libc::SYS_chdir), &[12], Directory, "PATH", "examined"),
        ("mkdir", old(83), &[39], Nothing, "PATH #0755", "examined written"),
        ("mkdirat", Some(libc::SYS_mkdirat), &[296], Nothing, "* PATH #0755", "examined written"),
        ("mknod", old(133), &[14], Nothing, "PATH #0100644 #0", "examined written"),
        ("mknodat", Some(libc::SYS_mknodat), &[297], Nothing, "* PATH #0100644 #0", "examined written"),
        ("unlink", old(87), &[10], File, "PATH", "examined written"),
        ("unlinkat", Some(libc::SYS_unlinkat), &[301], File, "* PATH #0", "examined written"),
        ("rmdir", old(84), &[40], Directory, "PATH", "examined written"),
        ("truncate", Some(libc::SYS_truncate), &[92], File, "PATH #0", "read written"),
        ("truncate64", None, &[193], File, "PATH #0 #0", "read written"),
        ("chmod", old(90), &[15], File, "PATH #0644", "read written"),
        ("fchmodat", Some(libc::SYS_fchmodat), &[306], File, "* PATH #0644", "read written"),
        ("fchmodat2", Some(452), &[452], File, "* PATH #0644 #0", "read written"),
        ("chown", old(92), &[182, 212], File, "PATH #-1 #-1", "read written"),
        ("lchown", old(94), &[16, 198], File, "PATH #-1 #-1", "read written"),
        ("fchownat", Some(libc::SYS_fchownat), &[298], File, "* PATH #-1 #-1 #0", "read written"),
        ("utime", old(132), &[30], File, "PATH #0", "read written"),
        ("utimes", old(235), &[271], File, "PATH #0", "read written"),
        ("futimesat", old(261), &[299], File, "* PATH #0", "read written"),
        ("utimensat", Some(libc::SYS_utimensat), &[320, 412], File, "* PATH #0 #0", "read written"),
        ("setxattr", Some(libc::SYS_setxattr), &[226], File, "PATH user.x x #1 #0", "read written"),
        ("lsetxattr", Some(libc::SYS_lsetxattr), &[227], File, "PATH user.x x #1 #0", "read written"),
        ("setxattrat", Some(463), &[463], File, "* PATH #0 user.x @ #16", "read written"),
        ("removexattr", Some(libc::SYS_removexattr), &[235], File, "PATH user.x", "read written"),
        ("lremovexattr", Some(libc::SYS_lremovexattr), &[236], File, "PATH user.x", "read written"),
        ("removexattrat", Some(466), &[466], File, "* PATH #0 user.x", "read written"),
        ("file_setattr", Some(469), &[469], File, "* PATH @ #24 #0", "read written"),
        ("rename", old(82), &[38], File, "PATH TO", "read written | written"),
        ("renameat", Some(libc::SYS_renameat), &[302], File, "* PATH * TO", "read written | written"),
        ("renameat2", Some(libc::SYS_renameat2), &[353], File, "* PATH * TO #0", "read written | written"),
        ("link", old(86), &[9], File, "PATH TO", "read | examined written"),
        ("linkat", Some(libc::SYS_linkat), &[303], File, "* PATH * TO #0", "read | examined written"),
        ("symlink", old(88), &[83], Nothing, "nowhere PATH", "examined written"),
        ("symlinkat", Some(libc::SYS_symlinkat), &[304], Nothing, "nowhere * PATH", "examined written"),
    ]
};

/// A program that makes one call: `call own|short NUMBER ARGUMENT...`. Whether it succeeds is of no account.
const CALL: &str = "
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifndef MAP_32BIT
#define MAP_32BIT 0
#endif
#define ROOM 8192
int main(int count, char **words) {
    char *low = mmap(0, 6 * ROOM, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_32BIT, -1, 0);
    long a[6] = {0}, number = atol(words[2]);
    for (int i = 0; i + 3 < count; i++) {
        char *word = words[i + 3], *room = low + i * ROOM;
        if (word[0] == '#') a[i] = strtol(word + 1, 0, 0);
        else if (word[0] == '*') a[i] = AT_FDCWD;
        else if (word[0] == '%') a[i] = open(word + 1, O_RDONLY|O_DIRECTORY);
        else { a[i] = (long)room; if (word[0] != '@') strcpy(room, word); }
    }
#ifdef __x86_64__
    if (words[1][0] == 's') {
        __asm__ volatile(\"int $0x80\" : \"+a\"(number) : \"b\"(a[0]), \"c\"(a[1]), \"d\"(a[2]), \"S\"(a[3]), \"D\"(a[4])
                         : \"memory\", \"r8\", \"r9\", \"r10\", \"r11\");
        return 0;
    }
#endif
    syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    return 0;
}";

#[test]
fn every_call_that_names_a_path_is_seen_to_do_what_it_does_to_it() {
    let bench = Bench::new();
    let Some(program) = compiled(&bench, "call", &["-O1"], CALL) else { return };
    let ways = ways();
    let short = ways.get(1);
    if short.is_none() {
        say_untested("32-bit calls", "another architecture");
    }
    let mut made = [BTreeSet::new(), BTreeSet::new()];
    let (mut script, mut expected) = (String::new(), BTreeMap::new());
    for (name, native, numbers, there, arguments, seen) in CALLS {
        let natives = native.iter().map(|number| (0, *number));
        let shorts = numbers.iter().filter(|_| short.is_some()).map(|number| (1, *number));
        for (way, number) in natives.chain(shorts) {
            made[way].insert(number);
            let path = format!("{name}.{way}.{number}");
            match there {
                There::File => bench.file(&path, "x"),
                There::Directory => bench.file(&format!("{path}/inside"), "x"),
                There::Nothing => {}
            }
            let word = |word: &str| match word {
                "PATH" => path.clone(),
                "TO" => format!("{path}.to"),
                "LIST" => format!("%{path}"),
                other => other.to_owned(),
            };
            let words: Vec<String> = arguments.split(' ').map(|text| format!("'{}'", word(text))).collect();
            script += &format!("{program} {} {number} {}\n", ["own", "short"][way], words.join(" "));
            let mut seen = seen.split(" | ");
            expected.insert(path.clone(), seen.next().unwrap_or_default());
            expected.extend(seen.next().map(|seen| (format!("{path}.to"), seen)));
        }
    }
    let ran = bench.run(&script);
    assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
    let expected: Vec<String> = expected.iter().map(|(path, seen)| format!("{path}: {seen}")).collect();
    assert_eq!(ran.inside(), expected);
    for (way, made) in ways.iter().zip(&made) {
        let names_path = |number: &c_long| match way.deed(*number) {
            None | Some(Deed::Connect | Deed::SendTo | Deed::SendMessage | Deed::SendMessages) => false,
            Some(deed) => !matches!(deed, Deed::Enter { path: None } | Deed::ChangeView),
        };
        let reported: BTreeSet<c_long> = (0..600).filter(names_path).collect();
        assert_eq!(&reported, made, "each call that is reported is made here");
    }
}

#[test]
fn a_path_is_meant_from_where_the_process_is_then_however_it_came_there() {
    let bench = Bench::new();
    let places = ["path", "descriptor", "child", "before", "thread", "shell/deep"];
    for place in places {
        bench.file(&format!("{place}/in.txt"), "x");
    }
    let python = "
import os, threading
def looks(): os.stat('in.txt')
def apart(does):
    if os.fork() == 0:
        does()
        os._exit(0)
    os.wait()
top = os.open('.', os.O_RDONLY)
os.chdir('path'); looks(); os.fchdir(top)
there = os.open('descriptor', os.O_RDONLY); os.fchdir(there); looks(); os.fchdir(top)
apart(lambda: (os.chdir('child'), looks()))
os.chdir('before'); apart(looks); os.chdir('..')
thread = threading.Thread(target=lambda: os.chdir('thread')); thread.start(); thread.join(); looks(); os.chdir('..')
";
    bench.file("goes.py", python);
    let ran = bench.run("python3 goes.py && cd shell && (cd deep; cat in.txt)");
    assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
    let files: Vec<String> = ran.inside().into_iter().filter(|line| line.contains("in.txt")).collect();
    let expected = places.map(|place| match place {
        "shell/deep" => format!("{place}/in.txt: read"),
        _ => format!("{place}/in.txt: examined"),
    });
    let expected: BTreeSet<String> = expected.into_iter().collect();
    assert_eq!(files.into_iter().collect::<BTreeSet<_>>(), expected);
}
