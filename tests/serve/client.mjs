// Clients of the HTTP face made of what others use: cloudevents, eventsource, ws, @octokit/webhooks-methods and
// standardwebhooks.
//
//     node client.mjs MODULES URL emit
//     node client.mjs MODULES URL sse QUERY COUNT
//     node client.mjs MODULES URL ws QUERY COUNT
//     node client.mjs MODULES URL github SECRET [FILE]
//     node client.mjs MODULES URL standard SECRET
//
// The last line is JSON of what was seen. Before it, sse and ws print a line each time that they are connected and for
// each event. FILE holds webhooks as the data of CloudEvents, one a line; without it all examples of
// @octokit/webhooks-examples are sent.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [modules, base, scenario, ...args] = process.argv.slice(2)
const require = createRequire(modules + '/')
const print = (seen) => console.log(JSON.stringify(seen))

function check(isSo, what) {
  if (!isSo) throw new Error(what)
}

/** Posts a body; returns the status and what the answer's JSON says. */
async function post(path, headers, body) {
  const response = await fetch(base + path, { method: 'POST', headers, body })
  const text = await response.text()
  const type = response.headers.get('content-type')
  const wanted = response.ok ? 'application/json' : 'application/problem+json'
  check(type === wanted, `${response.status} comes with ${type}: ${text}`)
  return { status: response.status, ...JSON.parse(text) }
}

const scenarios = {
  /** Sends events in each mode, each twice, and reads them back. */
  async emit() {
    const { CloudEvent, HTTP, Mode, emitterFor, httpTransport } = require('cloudevents')
    const common = { source: '/client.mjs', time: '2026-11-23T02:15:00.000Z' }
    // The library writes headers as they stand, so what is not ASCII is encoded beforehand in binary mode.
    const events = (mode, encode) => [
      {
        id: `${mode} 1`, type: 'js.odd', subject: encode('Straße "1" 100%41'), comexampleflag: encode('€😀'),
        comexamplenumber: 7, comexampletruth: true, data: { n: 1.5, text: 'ü' }, datacontenttype: 'application/json',
      },
      { id: `${mode} 2`, type: 'js.text', data: 'hello', datacontenttype: 'text/plain' },
      { id: `${mode} 3`, type: 'js.binary', data: new Uint8Array([0, 255, 10]), datacontenttype: 'image/gif' },
    ].map((event) => new CloudEvent({ ...common, ...event }))
    const seen = {}
    for (const [mode, encode] of [[Mode.STRUCTURED, (text) => text], [Mode.BINARY, encodeURIComponent]]) {
      const emit = emitterFor(httpTransport(base + '/events'), { mode })
      seen[mode] = []
      for (const event of events(mode, encode)) {
        for (let sent = 0; sent < 2; sent++) {
          const { body } = await emit(event)
          check(JSON.parse(body).ids?.length === 1, body.trim())
          seen[mode].push(JSON.parse(body))
        }
      }
    }
    const batch = JSON.stringify(events('batch', (text) => text))
    const batchType = { 'content-type': 'application/cloudevents-batch+json' }
    seen.batch = [await post('/events', batchType, batch), await post('/events', batchType, batch)]
    const response = await fetch(base + '/events?type=js.*')
    const message = { headers: Object.fromEntries(response.headers), body: await response.text() }
    seen.read = HTTP.toEvent(message).map((event) => JSON.parse(JSON.stringify(event)))
    return seen
  },

  /** Reads so many different events; the library comes back by itself to where it was. */
  sse(query, count) {
    const { EventSource } = require('eventsource')
    const [ids, cursors] = [[], []]
    let [opened, repeated] = [0, 0]
    return new Promise((resolve, reject) => {
      const source = new EventSource(`${base}/events?${query}`)
      source.addEventListener('open', () => print({ open: ++opened }))
      source.addEventListener('error', (error) => {
        if (source.readyState === source.CLOSED) reject(new Error(`${error.code}: ${error.message}`))
      })
      source.addEventListener('message', (event) => {
        const { id } = JSON.parse(event.data)
        print({ id })
        // Behind a restart, those come again that were not settled.
        if (ids.includes(id)) return void repeated++
        ids.push(id)
        cursors.push(event.lastEventId)
        if (ids.length < Number(count)) return
        source.close()
        resolve({ ids, cursors, opened, repeated })
      })
    })
  },

  /** Reads half of the events on one connection, and the rest on another that goes on behind them. */
  async ws(query, count) {
    const WebSocket = require('ws')
    const ids = []
    const read = (query, until) => new Promise((resolve, reject) => {
      const socket = new WebSocket(`${base.replace(/^http/, 'ws')}/events?${query}`, 'cloudevents.json')
      socket.on('open', () => print({ open: socket.protocol }))
      socket.on('error', reject)
      socket.on('close', (code, reason) => reject(new Error(`closed with ${code}: ${reason}`)))
      socket.on('message', (data, isBinary) => {
        // More may have come along with the last one.
        if (ids.length === until) return
        const event = JSON.parse(data)
        check(!isBinary, 'a binary message')
        print({ id: event.id })
        ids.push(event.id)
        if (ids.length < until) return
        resolve(event.evbuscursor)
        socket.terminate()
      })
    })
    const cursor = await read(query, Math.ceil(count / 2))
    const end = await read(`${query}&after=${cursor}`, Number(count))
    check(new Set(ids).size === ids.length, `an event came twice: ${ids}`)
    return { ids, cursors: [cursor, end] }
  },

  /** Sends webhooks as GitHub does, each twice, and one with a signature that is wrong. */
  async github(secret, file) {
    const path = modules + '/node_modules/@octokit/webhooks-methods/dist-node/index.js'
    const { sign } = await import(pathToFileURL(path))
    const lines = file && fs.readFileSync(file, 'utf8').trim().split('\n').map((line) => JSON.parse(line))
    // The type of such an event is com.github.NAME.ACTION.
    const webhooks = lines
      ? lines.map(({ type, data }) => ({ name: type.split('.')[2], payload: data }))
      : require('@octokit/webhooks-examples/api.github.com/index.json').flatMap(({ name, examples }) =>
        examples.map((payload) => ({ name, payload })))
    const send = (name, delivery, body, signature) => post('/hooks/github', {
      'content-type': 'application/json',
      'x-github-event': name,
      'x-github-delivery': delivery,
      'x-hub-signature-256': signature,
    }, body)
    const seen = { sent: webhooks.length, pings: 0, accepted: 0, repeated: 0 }
    for (const [at, { name, payload }] of webhooks.entries()) {
      const body = JSON.stringify(payload)
      const signature = await sign(secret, body)
      for (const duplicates of [0, 1]) {
        const answer = await send(name, `delivery-${at}`, body, signature)
        const shown = `${name} ${at}: ${JSON.stringify(answer)}`
        if (name === 'ping') {
          check(answer.status === 200, shown)
          seen.pings += 1
          continue
        }
        check(answer.status === 202 && answer.duplicates === duplicates, shown)
        check(answer.ids.length === 1 && answer.ids[0] === `delivery-${at}`, shown)
        seen[duplicates ? 'repeated' : 'accepted'] += 1
      }
    }
    const body = JSON.stringify(webhooks[0].payload)
    seen.wrong = (await send(webhooks[0].name, 'wrong', body, await sign(secret + '!', body))).status
    check(seen.wrong === 401, `a wrong signature is answered with ${seen.wrong}`)
    return seen
  },

  /** Sends a signed webhook twice, then one of another secret, and one that was signed an hour ago. */
  async standard(secret) {
    const { Webhook } = require('standardwebhooks')
    const other = 'whsec_' + Buffer.alloc(32).toString('base64')
    const body = JSON.stringify({ type: 'invoice.paid', text: 'ü' })
    const send = (secret, id, time) => post('/hooks/standard', {
      'content-type': 'application/json',
      'webhook-id': id,
      'webhook-timestamp': Math.floor(time / 1000),
      'webhook-signature': new Webhook(secret).sign(id, new Date(time), body),
    }, body)
    const now = Date.now()
    const accepted = [await send(secret, 'msg_1', now), await send(secret, 'msg_1', now)]
    check(accepted.every(({ status }) => status === 202), JSON.stringify(accepted))
    const wrong = (await send(other, 'msg_2', now)).status
    const old = (await send(secret, 'msg_3', now - 3_600_000)).status
    check(wrong === 401 && old === 401, `another secret: ${wrong}, an old time: ${old}`)
    return { accepted, wrong, old }
  },
}

try {
  check(scenario in scenarios, 'is no scenario')
  print(await scenarios[scenario](...args))
} catch (error) {
  console.error(`${scenario}: ${error.cause ?? error}`)
  process.exitCode = 1
}
