//! What else may live on a disk: file systems, partition tables, volume managers. Owns the
//! magic numbers; pure, and never sees a device.

/// Bytes from the start of a device that [`foreign_signature`] wants to see.
pub const SIGNATURE_HEAD_LEN: usize = 1 << 20;
/// Bytes from the end of a device that [`foreign_signature`] wants to see: an MD 0.90 superblock
/// stands up to 128 KiB before the end.
pub const SIGNATURE_TAIL_LEN: usize = 128 << 10;

/// Magic bytes at one offset from the start.
struct Magic {
    name: &'static str,
    offset: usize,
    bytes: &'static [u8],
}

const fn magic(name: &'static str, offset: usize, bytes: &'static [u8]) -> Magic {
    Magic { name, offset, bytes }
}

/// Magics that are proof by themselves. Offsets and values as in the superblock definitions of
/// the Linux kernel and in util-linux's libblkid.
const MAGICS: &[Magic] = &[
    magic("LUKS", 0, b"LUKS\xba\xbe"),
    magic("LUKS", 0x4000, b"SKUL\xba\xbe"),
    magic("XFS", 0, b"XFSB"),
    magic("squashfs", 0, b"hsqs"),
    magic("btrfs", 0x10040, b"_BHRfS_M"),
    magic("bcache", 0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    magic("bcachefs", 0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
    magic("F2FS", 0x400, b"\x10\x20\xf5\xf2"),
    magic("ISO9660", 0x8001, b"CD001"),
    magic("MD RAID", 0, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    magic("MD RAID", 0x1000, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    magic("NTFS", 3, b"NTFS    "),
    magic("exFAT", 3, b"EXFAT   "),
];

/// Page sizes that a swap area may have been made with.
const SWAP_PAGES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];
/// Sector sizes that a partition table may have been made with.
const SECTORS: [usize; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

/// Names what occupies a device of `size` bytes whose first bytes are `head`
/// ([`SIGNATURE_HEAD_LEN`], or all there are) and whose last are `tail`
/// ([`SIGNATURE_TAIL_LEN`], or all there are); `None` if nothing known.
#[must_use]
pub fn foreign_signature(size: u64, head: &[u8], tail: &[u8]) -> Option<&'static str> {
    MAGICS
        .iter()
        .find(|magic| has(head, magic.offset, magic.bytes))
        .map(|magic| magic.name)
        .or_else(|| ext(head))
        .or_else(|| swap(head))
        .or_else(|| lvm(head))
        .or_else(|| zfs(head))
        .or_else(|| fat(head))
        .or_else(|| gpt(head, tail))
        .or_else(|| md_at_end(size, tail))
        .or_else(|| mbr(head))
}

fn has(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

/// The ext family by its feature words, as mke2fs(8) sets them.
fn ext(head: &[u8]) -> Option<&'static str> {
    const SUPERBLOCK: usize = 1024;
    const HAS_JOURNAL: u32 = 0x4;
    /// Features that ext3 knows; any other means ext4.
    const EXT3_INCOMPATIBLE: u32 = 0x2 | 0x4 | 0x10;
    const EXT3_READ_ONLY: u32 = 0x1 | 0x2 | 0x4;
    if !has(head, SUPERBLOCK + 0x38, b"\x53\xef") {
        return None;
    }
    let compatible = u32_at(head, SUPERBLOCK + 0x5c)?;
    let incompatible = u32_at(head, SUPERBLOCK + 0x60)?;
    let read_only = u32_at(head, SUPERBLOCK + 0x64)?;
    Some(if incompatible & !EXT3_INCOMPATIBLE != 0 || read_only & !EXT3_READ_ONLY != 0 {
        "ext4"
    } else if compatible & HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    })
}

fn swap(head: &[u8]) -> Option<&'static str> {
    let found = SWAP_PAGES
        .iter()
        .any(|page| has(head, page - 10, b"SWAPSPACE2") || has(head, page - 10, b"SWAP-SPACE"));
    found.then_some("swap")
}

/// The label stands in one of the first four 512-byte sectors.
fn lvm(head: &[u8]) -> Option<&'static str> {
    let found = (0..4)
        .map(|sector| sector * 512)
        .any(|at| has(head, at, b"LABELONE") && has(head, at + 24, b"LVM2 001"));
    found.then_some("LVM2")
}

/// A ring of uberblocks fills the second half of the first label; any of them will do.
fn zfs(head: &[u8]) -> Option<&'static str> {
    const UBERBLOCK: u64 = 0x00ba_b10c;
    let found = (128 << 10..256 << 10).step_by(1024).any(|at| {
        has(head, at, &UBERBLOCK.to_le_bytes()) || has(head, at, &UBERBLOCK.to_be_bytes())
    });
    found.then_some("ZFS")
}

fn fat(head: &[u8]) -> Option<&'static str> {
    let found = has(head, 510, b"\x55\xaa")
        && (has(head, 82, b"FAT32   ")
            || [b"FAT12   ", b"FAT16   ", b"FAT     "].iter().any(|name| has(head, 54, *name)));
    found.then_some("FAT")
}

/// The header is the second sector, its copy the last.
fn gpt(head: &[u8], tail: &[u8]) -> Option<&'static str> {
    let found = SECTORS.iter().any(|sector| {
        has(head, *sector, b"EFI PART")
            || tail.len().checked_sub(*sector).is_some_and(|at| has(tail, at, b"EFI PART"))
    });
    found.then_some("GPT partition table")
}

/// Versions 1.0 and 0.90 keep their superblock near the end, at places rounded down to 4 KiB and
/// 64 KiB; see md(4).
fn md_at_end(size: u64, tail: &[u8]) -> Option<&'static str> {
    const MD: &[u8] = b"\xfc\x4e\x2b\xa9";
    let tail_start = size.checked_sub(tail.len() as u64)?;
    let in_tail = |offset: u64| usize::try_from(offset.checked_sub(tail_start)?).ok();
    let version_1_0 = size.checked_sub(8 << 10).map(|at| at & !0xfff).and_then(in_tail);
    let version_0_90 = (size & !0xffff).checked_sub(64 << 10).and_then(in_tail);
    // The older one is in the byte order of the machine that made it.
    let found = version_1_0.is_some_and(|at| has(tail, at, MD))
        || version_0_90.is_some_and(|at| has(tail, at, MD) || has(tail, at, b"\xa9\x2b\x4e\xfc"));
    found.then_some("MD RAID")
}

/// Four entries of 16 bytes at 446; the magic bytes after them alone prove nothing.
fn mbr(head: &[u8]) -> Option<&'static str> {
    let entries = head.get(446..510)?;
    let valid = entries.chunks_exact(16).all(|entry| entry[0] & 0x7f == 0);
    let used = entries.chunks_exact(16).any(|entry| entry[4] != 0 && entry[12..] != [0; 4]);
    (has(head, 510, b"\x55\xaa") && valid && used).then_some("MBR partition table")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 4 << 20;

    /// Bytes to put at offsets.
    type Places<'a> = &'a [(usize, &'a [u8])];

    fn named(disk: &[u8]) -> Option<&'static str> {
        let head = &disk[..disk.len().min(SIGNATURE_HEAD_LEN)];
        let tail = &disk[disk.len().saturating_sub(SIGNATURE_TAIL_LEN)..];
        foreign_signature(disk.len() as u64, head, tail)
    }

    fn with(places: Places) -> Vec<u8> {
        let mut disk = vec![0; SIZE];
        for (at, bytes) in places {
            disk[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        disk
    }

    #[test]
    fn every_magic_is_found_where_it_belongs_and_not_beside() {
        let mbr_entry = b"\0\0\0\0\x83\0\0\0\0\x08\0\0\0\x10\0\0";
        let md = b"\xfc\x4e\x2b\xa9\x01\0\0\0";
        let cases: &[(&str, Places)] = &[
            ("ext2", &[(1080, b"\x53\xef")]),
            ("ext3", &[(1080, b"\x53\xef"), (1116, b"\x04")]),
            ("ext4", &[(1080, b"\x53\xef"), (1116, b"\x04"), (1120, b"\x42")]),
            ("ext4", &[(1080, b"\x53\xef"), (1124, b"\x08")]),
            ("XFS", &[(0, b"XFSB")]),
            ("btrfs", &[(65600, b"_BHRfS_M")]),
            ("swap", &[(4086, b"SWAPSPACE2")]),
            ("swap", &[(65526, b"SWAPSPACE2")]),
            ("LVM2", &[(512, b"LABELONE"), (536, b"LVM2 001")]),
            ("MD RAID", &[(0, md)]),
            ("MD RAID", &[(4096, md)]),
            ("MD RAID", &[(SIZE - 8192, md)]),
            ("MD RAID", &[(SIZE - 65536, b"\xfc\x4e\x2b\xa9\0\0\0\0\x5a")]),
            ("GPT partition table", &[(512, b"EFI PART")]),
            ("GPT partition table", &[(4096, b"EFI PART")]),
            ("GPT partition table", &[(SIZE - 512, b"EFI PART")]),
            ("MBR partition table", &[(446, mbr_entry), (510, b"\x55\xaa")]),
            ("LUKS", &[(0, b"LUKS\xba\xbe\0\x02")]),
            ("LUKS", &[(16384, b"SKUL\xba\xbe\0\x02")]),
            ("ZFS", &[((128 << 10) + 3072, b"\x0c\xb1\xba\0\0\0\0\0")]),
            ("ZFS", &[(128 << 10, b"\0\0\0\0\0\xba\xb1\x0c")]),
            (
                "bcache",
                &[(4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")],
            ),
            ("F2FS", &[(1024, b"\x10\x20\xf5\xf2")]),
            ("NTFS", &[(3, b"NTFS    "), (510, b"\x55\xaa")]),
            ("exFAT", &[(3, b"EXFAT   "), (510, b"\x55\xaa")]),
            ("FAT", &[(82, b"FAT32   "), (510, b"\x55\xaa")]),
            ("FAT", &[(54, b"FAT16   "), (510, b"\x55\xaa")]),
            ("squashfs", &[(0, b"hsqs")]),
            ("ISO9660", &[(32769, b"CD001")]),
        ];
        for (name, places) in cases {
            assert_eq!(named(&with(places)), Some(*name), "{places:?}");
            let shifted: Vec<_> = places.iter().map(|(at, bytes)| (at + 7, *bytes)).collect();
            let shifted: Vec<_> =
                shifted.into_iter().filter(|(at, bytes)| at + bytes.len() <= SIZE).collect();
            assert_eq!(named(&with(&shifted)), None, "{name} seven bytes further");
        }
    }

    #[test]
    fn an_old_raid_superblock_is_found_when_the_size_is_no_multiple_of_64_kib() {
        let mut disk = vec![0; SIZE + 60_000];
        disk[SIZE - 65536..][..4].copy_from_slice(b"\xfc\x4e\x2b\xa9");
        assert_eq!(named(&disk), Some("MD RAID"));
    }

    #[test]
    fn blank_tiny_and_nearly_marked_disks_are_free() {
        assert_eq!(named(&vec![0; SIZE]), None);
        assert_eq!(named(&vec![0xff; SIZE]), None);
        for len in [0, 1, 511, 512, 4096] {
            assert_eq!(named(&vec![0; len]), None);
        }
        assert_eq!(named(&with(&[(510, b"\x55\xaa")])), None, "a boot mark without partitions");
    }
}
