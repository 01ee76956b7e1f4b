module heddle/tests/cluster/signing

go 1.26
