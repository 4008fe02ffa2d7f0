module flutecast.io/e2e/tools/git-server

go 1.26.0
