//! The system calls and ioctls that no safe crate offers, each behind a safe function. With
//! `port/vhost_user` the only module of this crate that may hold `unsafe`. It knows memory,
//! descriptors and virtio-net headers as bytes; what a frame means, its callers know.
#![allow(unsafe_code)]

pub(crate) mod checksum;
pub(crate) mod eventfd;
pub(crate) mod guarded_memory;
pub mod heap;
pub mod netns;
pub mod packet;
pub(crate) mod pool;
pub(crate) mod seccomp;
pub mod tap;

/// Bytes of a virtio-net header without `num_buffers`, as the kernel reads and writes it in front of
/// each frame.
pub(crate) const VNET_HEADER_LEN: usize = 10;

/// Most vectors that one readv(2), writev(2) or message of sendmmsg(2) takes (UIO_MAXIOV).
pub(crate) const MAX_VECTORS: usize = 1024;

/// Bytes for the kernel to read from.
fn vector_over(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}
