//! Finds the owner of the process at the other end of a local TCP connection. `ipmi_sim` waits for
//! its VM at a port of 127.0.0.1, where a process of any other user could wait instead.

use std::fs;
use std::io;
use std::net::SocketAddrV4;

use tokio::net::TcpStream;

/// The uid of the process at the other end. `None` while no process has accepted the connection.
///
/// # Errors
/// When the connection is not IPv4, or the kernel's table cannot be read.
pub(super) fn uid(connection: &TcpStream) -> io::Result<Option<u32>> {
    let (std::net::SocketAddr::V4(ours), std::net::SocketAddr::V4(theirs)) =
        (connection.local_addr()?, connection.peer_addr()?)
    else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    // The table of the thread, which may be in another network namespace than the process.
    let table = fs::read_to_string("/proc/thread-self/net/tcp")?;
    Ok(owner(&table, theirs, ours))
}

/// The owner of the socket from `local` to `remote`, in a table such as /proc/net/tcp (proc(5)).
fn owner(table: &str, local: SocketAddrV4, remote: SocketAddrV4) -> Option<u32> {
    let (local, remote) = (written(local), written(remote));
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, from, to, _, _, _, _, uid, _, inode, ..] = fields[..] else {
            return None;
        };
        // Before it is accepted, a connection has no inode and is listed as root's.
        let found = from == local && to == remote && inode != "0";
        found.then(|| uid.parse().ok()).flatten()
    })
}

/// An address as the table has it: the number in the host's byte order, and the port.
fn written(address: SocketAddrV4) -> String {
    let number = u32::from_ne_bytes(address.ip().octets());
    format!("{number:08X}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1E61 00000000:0000 0A 00000000:00000000 00:00000000 00000000 71003        0 111 1 0
   1: 0100007F:C001 0100007F:1E61 01 00000000:00000000 00:00000000 00000000     0        0 113 1 0
   2: 0100007F:1E61 0100007F:C001 01 00000000:00000000 00:00000000 00000000 71003        0 112 1 0
   3: 0100007F:1E61 0100007F:C002 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0
";

    #[test]
    fn the_other_end_is_found_and_only_once_it_was_accepted() {
        let at = |port| SocketAddrV4::new([127, 0, 0, 1].into(), port);
        let owner = |remote| owner(TABLE, at(0x1e61), at(remote));
        if cfg!(target_endian = "little") {
            assert_eq!(owner(0xc001), Some(71_003));
            assert_eq!(owner(0xc002), None, "not accepted yet");
            assert_eq!(owner(0xc003), None);
        }
    }

    #[tokio::test]
    async fn our_own_uid_is_found() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (client, _server) = tokio::join!(connect, listener.accept());
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(uid(&client.unwrap()).unwrap(), Some(own));
    }
}
