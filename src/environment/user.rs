//! The user that an image asks for, by its own lists of users and groups.
//!
//! Source: the OCI image specification, `User` of an image's configuration: `user`, `uid`, `user:group`, `uid:gid`,
//! and the mixed forms; passwd(5) and group(5) for the files.

/// Returns the numbers of user and group that `wanted` stands for; root's where nothing is wanted.
///
/// `passwd` and `group` are the image's `/etc/passwd` and `/etc/group`, empty where it has none. A user without a group
/// has the one that is listed for it, or root's.
///
/// # Errors
///
/// The name that neither is a number nor is listed.
pub fn user_of(wanted: &str, passwd: &str, group: &str) -> Result<(u32, u32), String> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let by_name = fields(passwd).find(|fields| fields[0] == user);
    let listed = by_name.or_else(|| fields(passwd).find(|fields| fields.get(2) == Some(&user)));
    let number_at = |fields: &[&str], at: usize| fields.get(at).and_then(|text| text.parse::<u32>().ok());
    let uid = listed.as_ref().and_then(|fields| number_at(fields, 2)).or_else(|| user.parse().ok());
    let uid = uid.ok_or_else(|| user.to_owned())?;
    let gid = match wanted_group.filter(|group| !group.is_empty()) {
        None => listed.as_ref().and_then(|fields| number_at(fields, 3)).unwrap_or_default(),
        Some(name) => {
            let listed = fields(group).find(|fields| fields[0] == name).and_then(|fields| number_at(&fields, 2));
            listed.or_else(|| name.parse().ok()).ok_or_else(|| name.to_owned())?
        }
    };
    Ok((uid, gid))
}

fn fields(list: &str) -> impl Iterator<Item = Vec<&str>> {
    list.lines().map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nmodel:x:1000:1001::/home/model:/bin/sh\n7:x:70:71::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\ndata:x:2000:model\n";

    #[test]
    fn a_user_is_a_name_or_a_number_with_or_without_a_group() {
        for (wanted, expected) in [
            ("", (0, 0)),
            ("root", (0, 0)),
            ("model", (1000, 1001)),
            ("1000", (1000, 1001)),
            ("1000:5", (1000, 5)),
            ("model:data", (1000, 2000)),
            ("model:", (1000, 1001)),
            (":data", (0, 2000)),
            ("4242", (4242, 0)),
            // A name wins over a number.
            ("7", (70, 71)),
        ] {
            assert_eq!(user_of(wanted, PASSWD, GROUP), Ok(expected), "{wanted:?}");
        }
        assert_eq!(user_of("1000:0", "", ""), Ok((1000, 0)));
    }

    #[test]
    fn who_is_not_listed_is_named() {
        assert_eq!(user_of("nobody", PASSWD, GROUP), Err("nobody".to_owned()));
        assert_eq!(user_of("model:nogroup", PASSWD, GROUP), Err("nogroup".to_owned()));
        assert_eq!(user_of("-1", "", ""), Err("-1".to_owned()));
    }
}
