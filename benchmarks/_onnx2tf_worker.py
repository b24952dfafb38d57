"""Runs inside the environment of onnx2tf: for each line read, converts source.onnx of the folder given and answers "done" or why not.

onnx2tf is imported once and every conversion is a fork, so that a crash or a leak ends with it.
"""
import os
import shutil
import sys

import onnx2tf

SECONDS = 60


def main(folder: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    for _ in sys.stdin:
        shutil.rmtree(os.path.join(folder, "result"), ignore_errors=True)
        child = os.fork()
        if child == 0:
            convert(folder)
        _, status = os.waitpid(child, 0)
        answers.write("done\n" if status == 0 else f"onnx2tf ended with {os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def convert(folder: str) -> None:
    import signal
    signal.alarm(SECONDS)
    try:
        onnx2tf.convert(input_onnx_file_path=os.path.join(folder, "source.onnx"), output_folder_path=os.path.join(folder, "result"), non_verbose=True)
        os._exit(0)
    except BaseException:
        os._exit(1)


main(sys.argv[1])
