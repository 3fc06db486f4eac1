// A receiver of webhooks made of what others use: standardwebhooks verifies a request, cloudevents reads it.
//
//     node receiver.mjs MODULES SECRET [CERT KEY [CA]]
//
// Prints its port, then a line of JSON for each request. With CERT and KEY it speaks TLS; with CA it wants a client's
// certificate by that authority.
import fs from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { createRequire } from 'node:module'

const [modules, secret, cert, key, ca] = process.argv.slice(2)
const require = createRequire(modules + '/')
const { Webhook } = require('standardwebhooks')
const { HTTP } = require('cloudevents')

const isText = (request) => !/^image/.test(request.headers['content-type'] ?? '')

function answer(request, response) {
  const chunks = []
  request.on('data', (chunk) => chunks.push(chunk))
  request.on('end', () => {
    const body = Buffer.concat(chunks)
    const seen = { id: request.headers['webhook-id'], type: request.headers['content-type'] }
    try {
      // Verifies before it reads the body as JSON, which a binary event need not be.
      try { new Webhook(secret).verify(body, request.headers) } catch (error) {
        if (!(error instanceof SyntaxError)) throw error
      }
      const events = [HTTP.toEvent({ headers: request.headers, body: isText(request) ? body.toString() : body })].flat()
      seen.events = events.map((event) => JSON.parse(JSON.stringify(event)))
    } catch (error) {
      seen.error = String(error)
    }
    response.writeHead(seen.error ? 400 : 204).end(seen.error)
    console.log(JSON.stringify(seen))
  })
}

const tls = cert && {
  cert: fs.readFileSync(cert),
  key: fs.readFileSync(key),
  ...(ca && { ca: fs.readFileSync(ca), requestCert: true, rejectUnauthorized: true }),
}
const server = tls ? https.createServer(tls, answer) : http.createServer(answer)
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
