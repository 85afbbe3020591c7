//! A frame as a driver hands it to a NIC with offloads: [`SuperFrame`].

/// Bytes of the virtio-net header.
const HEADER: usize = 10;
/// From the virtio specification (5.1.6): VIRTIO_NET_HDR_GSO_…
const GSO_ECN: u8 = 0x80;

/// A TCP segment or UDP datagram with a partial checksum that is to be segmented.
#[derive(Debug, Clone, Copy)]
pub struct SuperFrame {
    /// IPv6, not IPv4.
    pub six: bool,
    /// UDP, not TCP.
    pub udp: bool,
    /// Bytes after all headers.
    pub payload: usize,
    /// Bytes of payload in each piece; `None` for a frame that is not to be segmented.
    pub size: Option<u16>,
    /// Number of VLAN tags.
    pub tags: usize,
    /// ECN's CWR, which only the first piece may carry.
    pub cwr: bool,
    /// Options after the IPv4 header, or an extension header after the IPv6 header.
    pub ip_options: bool,
    /// A time stamp and padding after the TCP header.
    pub tcp_options: bool,
}

impl SuperFrame {
    /// TCP over IPv4 in pieces of 1448 bytes.
    pub fn tcp4(payload: usize) -> Self {
        SuperFrame {
            six: false,
            udp: false,
            payload,
            size: Some(1448),
            tags: 0,
            cwr: false,
            ip_options: false,
            tcp_options: true,
        }
    }

    /// The offset of the IP header in bytes.
    pub fn ip_at(&self) -> usize {
        14 + 4 * self.tags
    }

    /// The virtio-net header and the frame.
    pub fn build(&self) -> ([u8; HEADER], Vec<u8>) {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for tag in 0..self.tags {
            let tpid = if tag + 1 < self.tags {
                0x88a8u16
            } else {
                0x8100
            };
            frame.extend(tpid.to_be_bytes());
            frame.extend([0x20, 10 + tag as u8]);
        }
        frame.extend(if self.six { [0x86, 0xdd] } else { [8, 0] });
        let transport = self.transport();
        let datagram = transport.len() + self.payload;
        frame.extend(self.network(datagram));
        let transport_at = frame.len();
        frame.extend(&transport);
        let payload_at = frame.len();
        frame.extend((0..self.payload).map(|at| (at * 7 % 253) as u8));

        let checksum_at = if self.udp { 6 } else { 16 };
        let pseudo = self.pseudo_sum(datagram).to_be_bytes();
        frame[transport_at + checksum_at..][..2].copy_from_slice(&pseudo);
        (self.header(transport_at, checksum_at, payload_at), frame)
    }

    fn header(&self, transport_at: usize, checksum_at: usize, payload_at: usize) -> [u8; HEADER] {
        let mut header = [1, 0, 0, 0, 0, 0, 0, 0, checksum_at as u8, 0];
        header[6..8].copy_from_slice(&(transport_at as u16).to_le_bytes());
        if let Some(size) = self.size {
            header[1] = match (self.udp, self.six) {
                (true, _) => 5,
                (false, true) => 4,
                (false, false) => 1,
            };
            if self.cwr {
                header[1] |= GSO_ECN;
            }
            header[2..4].copy_from_slice(&(payload_at as u16).to_le_bytes());
            header[4..6].copy_from_slice(&size.to_le_bytes());
        }
        header
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = vec![0x0f, 0xa0, 0x13, 0x88]; // ports
        if self.udp {
            bytes.extend((8 + self.payload as u16).to_be_bytes());
            bytes.extend([0, 0]);
            return bytes;
        }
        let options: &[u8] = if self.tcp_options {
            &[1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7]
        } else {
            &[]
        };
        bytes.extend([0xff, 0xff, 0xf0, 7, 0, 0, 0, 9]); // sequence, soon to wrap; acknowledged
        let flags = 0x19 | if self.cwr { 0x80 } else { 0 }; // FIN, PSH, ACK
        bytes.extend([
            (5 + options.len() as u8 / 4) << 4,
            flags,
            0xff,
            0,
            0,
            0,
            0,
            0,
        ]);
        bytes.extend(options);
        bytes
    }

    fn network(&self, datagram: usize) -> Vec<u8> {
        let protocol = if self.udp { 17 } else { 6 };
        let extra = if self.ip_options { 8 } else { 0 };
        if self.six {
            let mut bytes = vec![0x60, 0x20, 1, 2];
            bytes.extend(((extra + datagram) as u16).to_be_bytes());
            bytes.extend([if self.ip_options { 60 } else { protocol }, 64]);
            bytes.extend(self.addresses());
            if self.ip_options {
                bytes.extend([protocol, 0, 1, 4, 0, 0, 0, 0]); // padding
            }
            return bytes;
        }
        let len = 20 + extra;
        let mut bytes = vec![0x40 | (len / 4) as u8, 2];
        bytes.extend(((len + datagram) as u16).to_be_bytes());
        bytes.extend([0xff, 0xfd, 0x40, 0, 64, protocol, 0, 0]); // an ID that soon wraps; DF
        bytes.extend(self.addresses());
        bytes.extend(vec![1; extra]); // no operation
        let sum = !fold(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn addresses(&self) -> Vec<u8> {
        if self.six {
            [[0xfd, 0, 0, 1].repeat(4), [0xfd, 0, 0, 2].repeat(4)].concat()
        } else {
            vec![10, 0, 0, 1, 10, 0, 0, 2]
        }
    }

    /// The content of a partial checksum's field: the pseudo header's sum, not inverted.
    fn pseudo_sum(&self, datagram: usize) -> u16 {
        let mut pseudo = self.addresses();
        pseudo.extend([0, if self.udp { 17 } else { 6 }]);
        pseudo.extend((datagram as u32).to_be_bytes());
        fold(&pseudo)
    }
}

fn fold(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
