"""PlatformIO extra script: what ``build_flags`` do not carry to the linker.

The firmware brings its own start-up code and memory functions, so that neither
the C library nor its start files are linked.  The FPU flags choose the variant
of libgcc; without them the linker refuses to mix calling conventions.

It runs twice: before the platform's own script, which keeps the flags, and
after it, which has added libraries by then.  When the firmware is linked, its
checksum is written into it (bnn_checksum.py).
"""

import sys
from pathlib import Path

Import("env")  # noqa: F821  SCons provides it

MACHINE = ("-mcpu=", "-mthumb", "-mfpu=", "-mfloat-abi=")

if env.get("BNN_FLAGS_ARE_SET"):  # noqa: F821
    env.Replace(LIBS=["gcc"])  # noqa: F821
    sys.path.insert(0, env.subst("$PROJECT_DIR"))  # noqa: F821
    from bnn_checksum import stamp

    def _stamp(target, source, env):
        stamp(Path(str(target[0])))

    env.AddPostAction("$BUILD_DIR/${PROGNAME}.elf", _stamp)  # noqa: F821
else:
    flags = " ".join(env.GetProjectOption("build_flags", [])).split()  # noqa: F821
    env.Append(  # noqa: F821
        LINKFLAGS=[
            *[flag for flag in flags if flag.startswith(MACHINE)],
            "-nostartfiles",
            "-nostdlib",
        ],
        BNN_FLAGS_ARE_SET=True,
    )
