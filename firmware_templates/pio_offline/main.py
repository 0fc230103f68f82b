"""What the real platforms do to a project without a framework: the compiler, flags, libraries.

They add -Os, --relax and a C library of their own accord; the project's
platformio.ini takes those away again, here as there.
"""

import sys

from SCons.Script import COMMAND_LINE_TARGETS, Default, DefaultEnvironment

env = DefaultEnvironment()
if "upload" in COMMAND_LINE_TARGETS:
    sys.stderr.write("bnnmcu: a stand-in platform cannot upload: unset PLATFORMIO_CORE_DIR\n")
    env.Exit(1)

cpu = "-mcpu=" + env.BoardConfig().get("build.cpu")
env.Replace(
    AR="arm-none-eabi-gcc-ar",
    AS="arm-none-eabi-as",
    CC="arm-none-eabi-gcc",
    CXX="arm-none-eabi-g++",
    OBJCOPY="arm-none-eabi-objcopy",
    RANLIB="arm-none-eabi-gcc-ranlib",
    SIZETOOL="arm-none-eabi-size",
    ARFLAGS=["rc"],
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
)
env.Append(
    CCFLAGS=["-Os", "-ffunction-sections", "-fdata-sections", "-Wall", "-mthumb", cpu],
    CPPDEFINES=[("F_CPU", "$BOARD_F_CPU")],
    LINKFLAGS=["-Os", "-Wl,--gc-sections,--relax", "-mthumb", cpu],
    LIBS=["c", "gcc", "m", "stdc++"],
)
Default([env.BuildProgram()])
