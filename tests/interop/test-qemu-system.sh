#!/usr/bin/env bash
# A virtual machine boots from a disk that we serve: the BIOS reads the boot
# sector, which is ours and shorter than any system, and this reads some sectors,
# sends them to the serial port, and writes them back in another place.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires qemu-system-x86_64 --version
requires as --32 -o "$tmp/empty.o" /dev/null
requires ld --version
cd "$tmp"

# The sectors are in two clusters of 64K, and so are the copies.
count=16
from=120
to=15990

cat > boot.s <<END
        .code16
        .globl  _start
_start: ljmp    \$0, \$1f
1:      xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     \$0x7c00, %sp
        cld
        mov     %dl, drive              # that of the BIOS

        mov     \$packet, %si
        mov     \$0x42, %ah             # read
        int     \$0x13
        jc      failed

        mov     \$0x8000, %si
        mov     \$(512 * $count), %cx
print:  mov     \$0x3fd, %dx
2:      in      %dx, %al                # until it can take one more
        test    \$0x20, %al
        jz      2b
        lodsb
        mov     \$0x3f8, %dx
        out     %al, %dx
        loop    print

        movl    \$$to, sector
        mov     drive, %dl
        mov     \$packet, %si
        mov     \$0x4300, %ax           # write
        int     \$0x13
        jc      failed
        mov     \$0x10, %al
        jmp     exit
failed: mov     \$0x11, %al
exit:   out     %al, \$0xf4             # qemu ends with 2 * al + 1
3:      hlt
        jmp     3b

drive:  .byte   0
        .balign 4
packet: .byte   16, 0
        .word   $count, 0x8000, 0       # count, offset and segment
sector: .long   $from, 0

        .org    510
        .word   0xaa55
END
as --32 -o boot.o boot.s
ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o boot.bin boot.o
[ "$(stat -c %s boot.bin)" = 512 ] || fail "not a sector"

yes "All that you see has been read by a BIOS." | head -c $((512 * count)) \
    > text
truncate -s 8M disk.raw
dd if=boot.bin of=disk.raw conv=notrunc status=none
dd if=text of=disk.raw seek=$from conv=notrunc status=none

for i in "ide cluster_size=64K" "virtio data_file=x.data,data_file_raw=on"; do
    new_image -o "${i#* }" x.qcow2 8M
    qemu-img convert -n -f raw -O qcow2 disk.raw x.qcow2
    serve s --filter="$qcow2ext" file x.qcow2
    status=0
    timeout 120 qemu-system-x86_64 -machine pc,accel=tcg -m 32 -nodefaults \
            -no-user-config -display none -serial file:serial \
            -device isa-debug-exit,iobase=0xf4,iosize=4 \
            -drive "file=$(uri s),format=raw,if=${i% *},cache=writeback" \
            </dev/null || status=$?
    stop s
    [ $status = 33 ] || fail "${i% *}: qemu-system ended with $status"
    cmp text serial || fail "${i% *}: read something else"
    clean
    cp disk.raw want.raw
    dd if=text of=want.raw seek=$to conv=notrunc status=none
    identical want.raw
done
same_file want.raw x.data
