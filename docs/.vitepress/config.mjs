// The docs as a site: the repository's own Markdown, unchanged. Links in it are those of a
// code host, from file to file; here they become links of the site.
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitepress'

const repository = path.resolve(import.meta.dirname, '../..')

// Where a page of the repository is on the site, or undefined if it is no page of the site.
function place(file) {
  const named = { 'README.md': 'index.md', 'README.zh-CN.md': 'zh/index.md' }
  if (named[file]) return named[file]
  if (/^[A-Z_]+\.md$/.test(file)) return 'project/' + file.toLowerCase()
  const shown = /^(docs\/|pkg\/plugins\/|charts\/everynode\/README|deploy\/)/
  if (!file.endsWith('.md') || !shown.test(file)) return undefined
  return file.replace(/^docs\//, '').replace(/(^|\/)README\.md$/, '$1index.md')
}

// Headings are named as code hosts name them, so that the links of the repository hold.
const slugify = (heading) =>
  heading.toLowerCase().replace(/[^\p{L}\p{N}\p{M}\s_-]/gu, '').replace(/\s/g, '-')

// Files that are linked and are no pages; they come along.
const files = new Set()

function rewriteLinks(md) {
  md.core.ruler.push('repository-links', ({ tokens, env }) => {
    const folder = path.dirname(env.realPath ?? env.path)
    let dropped = false
    for (const token of tokens.flatMap((block) => block.children ?? [])) {
      if (dropped && token.type === 'link_close') {
        dropped = false
        Object.assign(token, { type: 'text', tag: '', nesting: 0 })
      }
      const href = token.type === 'link_open' ? decodeURI(token.attrGet('href')) : ''
      if (!href || href.startsWith('#') || /^[a-z]+:/.test(href)) continue
      const [target, anchor] = href.split('#')
      let file = path.relative(repository, path.resolve(folder, target))
      const isFolder = statSync(path.join(repository, file)).isDirectory()
      if (isFolder && existsSync(path.join(repository, file, 'README.md'))) file += '/README.md'
      const page = place(file)
      if (page) {
        token.attrSet('href', '/' + page + (anchor ? '#' + anchor : ''))
      } else if (!isFolder) {
        files.add(file)
        token.attrSet('href', (process.env.DOCS_BASE ?? '/') + 'files/' + file + '.txt')
        token.attrSet('target', '_blank')
      } else {
        // Folders are for code hosts: here their names are no links.
        dropped = true
        Object.assign(token, { type: 'text', tag: '', nesting: 0 })
      }
    }
  })
}

// Text as it is shown. The site's generator would take {{ }} of Helm for its own. Names have places
// to break, which the style uses in tables: those of long names always, others on phones. Flags do
// not break after their dashes.
function showNames(md) {
  const outsideTags = (html, change) => html.split(/(<[^>]*>)/).map((part, i) => (i % 2 ? part : change(part))).join('')
  const places = /(?<=\w[._/])(?=\w)|(?<=[a-z]{2})(?<!Daemon)(?=[A-Z][a-z])/g
  const breakNames = (text) => text.replace(/[\w./-]{13,}/g, (name) =>
    name.replace(places, name.length < (name.includes('/') ? 27 : 16) ? '<wbr class="narrow">' : '<wbr>'))
  const breakJSON = (text) => text.replace(/[,:](?=&quot;|[{[])/g, '$&<wbr>')
  const keepFlags = (text) => text.replace(/(?<![\w-])--?\w+/g, '<span class="flag">$&</span>')
  const change = { text: breakNames, code_inline: (text) => keepFlags(breakJSON(breakNames(text))) }
  for (const rule of ['text', 'code_inline', 'html_inline', 'html_block']) {
    const render = md.renderer.rules[rule]
    md.renderer.rules[rule] = (...args) => {
      const html = render(...args).replaceAll('{{', '&#123;&#123;')
      return change[rule] ? outsideTags(html, change[rule]) : html
    }
  }
}

// A line break in Chinese is no space, except beside a word in another script.
function joinChinese(md) {
  const han = /\p{Script=Han}/u
  const punctuation = /[\u3000-\u303f\uff00-\uffef“”‘’…]/u
  md.core.ruler.push('chinese-line-breaks', ({ tokens }) => {
    for (const { children } of tokens) {
      children?.forEach((token, i) => {
        const before = children[i - 1]?.content.at(-1) ?? ''
        const after = children[i + 1]?.content[0] ?? ''
        if (token.type === 'softbreak' && (punctuation.test(before + after) || (han.test(before) && han.test(after)))) {
          token.type = 'text'
          token.content = ''
        }
      })
    }
  })
}

const item = (text, link) => ({ text, link })
const group = (text, items, collapsed = false) => ({ text, items, collapsed })
// A page, by its heading.
const pageAt = (file, link) => item(readFileSync(path.join(repository, file), 'utf8').match(/^# (.*)$/m)[1], link)
// The pages of a folder of docs.
function pagesIn(folder) {
  const from = path.join(repository, 'docs', folder)
  if (!existsSync(from)) return []
  return readdirSync(from).filter((file) => file.endsWith('.md')).sort().map((file) =>
    pageAt(`docs/${folder}/${file}`, `/${folder}/${file.replace(/\.md$/, '')}`))
}

const plugins = ['headroom', 'placement', 'readiness', 'preemption', 'queuesort', 'binding'].map((folder) =>
  pageAt(`pkg/plugins/${folder}/README.md`, `/pkg/plugins/${folder}/`))

const lessons = ['what', 'create', 'scheduling', 'nodes', 'taints', 'updates', 'deployments', 'agents', 'questions', 'practices']
const tutorial = (base, titles) => lessons.map((name, i) => item(titles[i], `${base}tutorial/${name}`))

const sidebar = [
  group('Start', [item('Start', '/start'), { ...item('Install', '/install'), items: [...pagesIn('install'), pageAt('deploy/static-pod/README.md', '/deploy/static-pod/')], collapsed: true }, item('Support and upgrades', '/support')]),
  group('Tutorial', [item('Overview', '/tutorial/'), ...tutorial('/', [
    'What a DaemonSet is', 'Create and inspect', 'Who schedules', 'Choose nodes', 'Taints', 'Update and undo',
    'Compared with Deployments', 'Four agents', 'Common questions', 'Best practices'])], true),
  group('Concepts', [item('Concepts', '/concepts'), item('How it works', '/design'), item('Tested scenarios', '/scenarios')]),
  group('Tasks', [
    item('Why is a pod missing?', '/walkthrough'), item('Troubleshooting', '/troubleshooting'),
    item('Why is my pod held back?', '/troubleshooting#an-ordinary-pod-stays-pending-though-a-node-looks-empty-enough'),
    item('Remove it', '/install#remove'), item('Autoscalers', '/autoscaling'),
    item('Metrics and alerts', '/metrics'), item('Certificates', '/certificates'), item('A local cluster', '/localcluster')]),
  group('Reference', [
    { ...item('Configuration', '/configuration'), items: plugins, collapsed: true }, item('kubectl everynode', '/cli'), item('Reasons', '/reasons'),
    item('Checks of DaemonSets', '/lint'), item('Chart', '/charts/everynode/'), item('Security', '/security'),
    item('Performance', '/performance'), item('Community plugins', '/scheduler-plugins')]),
  group('Compare', [item('Compare', '/compare'), item('FAQ', '/faq')]),
  group('Contribute', [
    item('Contributing', '/project/contributing'), item('Roadmap', '/roadmap'), item('Changes', '/project/changelog'),
    item('Images and releases', '/release'), item('Conformance', '/conformance'), item('Maintainers', '/project/maintainers'),
    item('Security policy', '/project/security'), item('Code of conduct', '/project/code_of_conduct')], true),
]

const chineseSidebar = [
  group('入门', [item('快速开始', '/zh/start'), item('安装（英文）', '/install'), item('卸载（英文）', '/install#remove'), item('支持与升级（英文）', '/support')]),
  group('教程', [item('概览', '/zh/tutorial/'), ...tutorial('/zh/', [
    'DaemonSet 是什么', '创建与查看', '谁来调度', '选择节点', '污点和容忍度', '滚动更新与回滚', '与 Deployment 的对比',
    '四个节点代理', '常见问题', '最佳实践'])]),
  group('概念', [item('概念', '/zh/concepts'), item('工作原理（英文）', '/design')]),
  group('参考（英文）', [
    item('故障排查', '/troubleshooting'), item('自动扩缩', '/autoscaling'), item('配置', '/configuration'), item('kubectl 插件', '/cli'),
    item('原因一览', '/reasons'), item('检查规则', '/lint'), item('指标', '/metrics')], true),
  group('对比', [item('对比', '/zh/compare'), item('常见问题', '/zh/faq')]),
]

// A node and its row of daemon pods, one of them on its way.
const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><g fill="#007a5a"><rect x="2" y="2" width="12" height="12" rx="2"/>
<rect x="18" y="2" width="12" height="12" rx="2"/><rect x="2" y="18" width="12" height="12" rx="2"/></g>
<rect x="19" y="19" width="10" height="10" rx="2" fill="none" stroke="#c07000" stroke-width="2"/></svg>`

// Chinese has no spaces: each of its characters is a word of its own to the search.
const tokenize = (text) => text.toLowerCase().match(/\p{Script=Han}|[^\s\p{P}\p{S}\p{Script=Han}]+/gu) ?? []

export default defineConfig({
  title: 'everynode',
  description: 'Every DaemonSet on every node it belongs on',
  base: process.env.DOCS_BASE ?? '/',
  head: [['link', { rel: 'icon', href: 'data:image/svg+xml,' + encodeURIComponent(icon) }]],
  srcDir: '..',
  srcExclude: ['**/node_modules/**', '_artifacts/**', 'bin/**', 'dist/**', 'test/**', '**/testdata/**', '.*/**'],
  rewrites: place,
  cleanUrls: false,
  lastUpdated: false,
  markdown: {
    languageAlias: { promql: 'sql' },
    anchor: { slugify },
    toc: { slugify },
    headers: { slugify },
    config: (md) => md.use(rewriteLinks).use(joinChinese).use(showNames),
  },
  // Pages lie above the folder with the packages: what they import is looked for from here.
  vite: {
    plugins: [{
      name: 'packages',
      enforce: 'pre',
      resolveId(id, importer) {
        return /^vue(\/|$)/.test(id) && importer?.includes('.md') ? this.resolve(id, fileURLToPath(import.meta.url), { skipSelf: true }) : null
      },
    }],
  },
  buildEnd({ outDir }) {
    for (const file of files) {
      const to = path.join(outDir, 'files', file + '.txt')
      mkdirSync(path.dirname(to), { recursive: true })
      copyFileSync(path.join(repository, file), to)
    }
  },
  locales: {
    root: {
      label: 'English',
      lang: 'en',
      themeConfig: {
        sidebar,
        nav: [item('Start', '/start'), item('Tutorial', '/tutorial/'), item('Concepts', '/concepts'), item('Reference', '/configuration'),
          item('Compare', '/compare'), item('FAQ', '/faq')],
        outline: { level: [2, 3] },
      },
    },
    zh: {
      label: '简体中文',
      lang: 'zh-CN',
      description: '让每个 DaemonSet 都运行在它该在的每个节点上',
      themeConfig: {
        sidebar: chineseSidebar,
        nav: [item('快速开始', '/zh/start'), item('教程', '/zh/tutorial/'), item('概念', '/zh/concepts'), item('对比', '/zh/compare'), item('常见问题', '/zh/faq')],
        outline: { level: [2, 3], label: '本页目录' },
        docFooter: { prev: '上一页', next: '下一页' },
        darkModeSwitchLabel: '外观',
        sidebarMenuLabel: '目录',
        returnToTopLabel: '回到顶部',
        langMenuLabel: '语言',
        skipToContentLabel: '跳到正文',
      },
    },
  },
  themeConfig: {
    i18nRouting: false,
    search: {
      provider: 'local',
      options: {
        miniSearch: { options: { tokenize } },
        locales: { zh: { translations: {
          button: { buttonText: '搜索', buttonAriaLabel: '搜索' },
          modal: { noResultsText: '没有结果', resetButtonTitle: '清除', footer: { selectText: '选择', navigateText: '移动', closeText: '关闭' } },
        } } },
      },
    },
  },
})
