set -eu
git clone -q "$UPSTREAM" project
cd project
git config user.name Agent
git switch -q -c topic
printf 'int product(int a, int b) { return a * b; }\n' >>sum.c
git diff --stat
git commit -qam 'Add product'
git switch -q main
printf '/* sums */\n' >>sum.h
git commit -qam 'Say what it is'
git merge -q --no-edit topic
git switch -q -c later HEAD~1
printf 'later\n' >NOTES
git add NOTES
git commit -qm 'Rebased'
git rebase -q main
git switch -q main
git merge -q --ff-only later
printf 'half done\n' >>NOTES
git stash -q
git stash pop -q
git checkout -q NOTES
git worktree add -q ../second -b second
(cd ../second && printf 'two\n' >two && git add two && git commit -qm Two)
git worktree remove ../second
git tag -a v1 -m 'Version 1'
git log --oneline --graph | cat
git blame sum.c >/dev/null
git grep -q product
git init -q --bare ../own.git
git remote add own ../own.git
git push -q own main
git clone -q ../own.git ../again
git fetch -q --all
git reset -q --hard HEAD
git clean -qfdx
git gc -q
