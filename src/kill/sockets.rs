//! The sockets of a network namespace, as /proc/PID/net lists them.
//!
//! Read here and not by a crate for /proc: those give a whole table up for one name in it that is no UTF-8, and whoever
//! is to be killed chooses such names.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::member::Member;
use crate::event::{names, text};

/// What is connected, by the inode number of the socket.
pub(super) type Sockets = HashMap<u64, Socket>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Socket {
    transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port: Option<u16>,
    /// Of a UNIX socket; an abstract one begins with `@`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

/// The sockets of the namespace that a process is in.
pub(super) fn read(member: &Member) -> io::Result<Sockets> {
    let mut sockets = Sockets::new();
    for (table, transport) in [
        ("tcp", "tcp"),
        ("tcp6", "tcp"),
        ("udp", "udp"),
        ("udp6", "udp"),
        ("unix", "unix"),
    ] {
        let text = match fs::read(member.path(&format!("net/{table}"))) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound && member.now().is_some() => continue,
            Err(e) => return Err(e),
        };
        for line in text.split(|b| *b == b'\n').skip(1) {
            let socket = match transport {
                "unix" => unix(line),
                _ => internet(line, transport),
            };
            if let Some((inode, socket)) = socket.filter(|(inode, _)| *inode != 0) {
                // A name with a line feed in it can look like another line.
                sockets.entry(inode).or_insert(socket);
            }
        }
    }
    Ok(sockets)
}

/// `sl local remote st tx:rx tr:when retransmits uid timeout inode ...`
fn internet(line: &[u8], transport: &'static str) -> Option<(u64, Socket)> {
    let fields: Vec<&str> = std::str::from_utf8(line)
        .ok()?
        .split_ascii_whitespace()
        .collect();
    let (local_ip, local_port) = address(fields.get(1)?)?;
    let (remote_ip, remote_port) = address(fields.get(2)?)?;
    let state = u8::from_str_radix(fields.get(3)?, 16).ok()?;
    let socket = Socket {
        transport,
        local_ip: Some(local_ip),
        local_port: Some(local_port),
        remote_ip: Some(remote_ip),
        remote_port: Some(remote_port),
        path: None,
        state: names::tcp_state(state),
    };
    Some((fields.get(9)?.parse().ok()?, socket))
}

/// `ADDRESS:PORT` in hexadecimal digits; the address in words of 32 bits, each as the machine has it.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    let words = address.as_bytes().chunks_exact(8);
    if !words.remainder().is_empty() {
        return None;
    }
    for word in words {
        let word = std::str::from_utf8(word).ok()?;
        bytes.extend(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => Ipv4Addr::from(four).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).into(),
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

/// `num: refcount protocol flags type state inode path`
fn unix(line: &[u8]) -> Option<(u64, Socket)> {
    /// `__SO_ACCEPTCON`, include/linux/net.h.
    const LISTENS: u32 = 1 << 16;

    let mut rest = line;
    let mut next = || {
        rest = rest.trim_ascii_start();
        let (field, after) =
            rest.split_at(rest.iter().position(|b| *b == b' ').unwrap_or(rest.len()));
        rest = after;
        std::str::from_utf8(field).ok()
    };
    let (_, _, _, flags, _, state, inode) = (
        next()?,
        next()?,
        next()?,
        next()?,
        next()?,
        next()?,
        next()?,
    );
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let state = match u8::from_str_radix(state, 16).ok()? {
        _ if flags & LISTENS != 0 => Some("listen"),
        1 => Some("unconnected"),
        2 => Some("connecting"),
        3 => Some("connected"),
        4 => Some("disconnecting"),
        _ => None,
    };
    let socket = Socket {
        transport: "unix",
        local_ip: None,
        local_port: None,
        remote_ip: None,
        remote_port: None,
        path: rest.strip_prefix(b" ").map(text::escape),
        state,
    };
    Some((inode.parse().ok()?, socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(found: Option<(u64, Socket)>) -> String {
        let (inode, socket) = found.expect("a socket");
        format!("{inode} {}", serde_json::to_string(&socket).unwrap())
    }

    #[test]
    fn addresses_are_read_as_the_machine_writes_them() {
        // As this machine would write 127.0.0.1:80, 2001:db8::1:443 and so on.
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let four = word([127, 0, 0, 1]);
        let line = format!(
            "   0: {four}:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1611 1 0 100"
        );
        assert_eq!(
            json(internet(line.as_bytes(), "tcp")),
            r#"1611 {"transport":"tcp","local_ip":"127.0.0.1","local_port":80,"remote_ip":"0.0.0.0","remote_port":0,"state":"listen"}"#
        );
        let zero = word([0; 4]);
        let six = format!(
            "{}{zero}{zero}{}",
            word([0x20, 1, 0xd, 0xb8]),
            word([0, 0, 0, 1])
        );
        assert_eq!(
            address(&format!("{six}:01BB")),
            Some(("2001:db8::1".parse().unwrap(), 443))
        );
        for wrong in [
            "",
            "x",
            "0100007F",
            "0100007F:",
            "0100:0050",
            "0100007F0:0050",
        ] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
        assert_eq!(internet(b"", "tcp"), None);
        assert_eq!(internet(b"\xff\xfe", "tcp"), None);
    }

    #[test]
    fn names_of_unix_sockets_are_all_that_is_behind_the_number() {
        let line = |rest: &[u8]| {
            let mut line = b"0000000061574509: 00000002 00000000 00010000 0001 01 ".to_vec();
            line.extend(rest);
            unix(&line)
        };
        assert_eq!(
            json(line(b"  917 /run/a b\xff.socket")),
            r#"917 {"transport":"unix","path":"/run/a b\\xff.socket","state":"listen"}"#
        );
        assert_eq!(
            json(line(b"123456 @ abstract")),
            r#"123456 {"transport":"unix","path":"@ abstract","state":"listen"}"#
        );
        assert_eq!(
            json(line(b"123456")),
            r#"123456 {"transport":"unix","state":"listen"}"#
        );
        assert_eq!(unix(b""), None);
        assert_eq!(unix(b"0: 1 2 3 4"), None);
    }

    #[test]
    fn a_connection_of_ours_is_listed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let member = Member::open(std::process::id()).unwrap().unwrap();
        let sockets = read(&member).unwrap();
        let found = sockets.values().find(|s| s.local_port == Some(port));
        assert_eq!(found.and_then(|s| s.state), Some("listen"));
    }
}
