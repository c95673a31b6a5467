"""What an error would tell to whoever logs it: for tests that look for a credential in it."""

import traceback


def everything_said(error: BaseException) -> str:
    """Return message, repr, arguments, fields and traceback of the error and of its whole chain."""
    told, pending = "", [error]
    while pending:
        one = pending.pop()
        told += f"{one} {one!r} {one.args!r} {vars(one)!r}\n"
        pending += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
    return told + "".join(traceback.format_exception(error))
