// Makes the page's script, when it is asked for first. In a project of your own a bundler such as Vite does this.
import { fileURLToPath, URL } from 'node:url'
import commonjs from '@rollup/plugin-commonjs'
import { nodeResolve } from '@rollup/plugin-node-resolve'
import { rollup } from '@rollup/wasm-node'
import ts from 'typescript'

const ENTRY = fileURLToPath(new URL('page.jsx', import.meta.url))

const jsx = {
  name: 'jsx',
  transform(code, id) {
    if (!id.endsWith('.jsx')) return null
    const compilerOptions = {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ESNext,
      jsx: ts.JsxEmit.ReactJSX
    }
    return { code: ts.transpileModule(code, { compilerOptions }).outputText, map: null }
  }
}

/** GET /react/page.js */
export async function scripts(app) {
  let script
  app.get('/react/page.js', async (_request, reply) => {
    script ??= bundle()
    return reply.type('text/javascript').send(await script)
  })
}

async function bundle() {
  const build = await rollup({
    input: ENTRY,
    plugins: [jsx, nodeResolve({ browser: true }), commonjs()],
    // the server has it already
    external: ['/login/session.js']
  })
  const { output } = await build.generate({
    format: 'es',
    // packages ask it whether they are in production
    banner: 'const process = { env: { NODE_ENV: "production" } }'
  })
  await build.close()
  return output[0].code
}
