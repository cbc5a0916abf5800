set -eu
cd app
npm install --no-fund --no-audit ../lib
npm install --no-fund --no-audit
npm run --silent answer
npm test --silent | tee tests
npx --no-install adder
npm pack --silent
