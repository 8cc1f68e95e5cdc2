"""What schemathesis is to look for."""

import schemathesis


@schemathesis.check
def documented_status(ctx, response, case):
    if response.status_code < 500:
        return
    try:
        code = response.json().get("error_code", "")
    except ValueError:
        code = ""
    # The one that is documented: the node has no lease, the log takes no changes, a device's node was lost.
    if response.status_code == 503 and code.startswith("FULMAR."):
        return
    raise AssertionError(f"documented_status: {response.status_code} {response.text[:200]}")
