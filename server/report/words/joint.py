"""Texts of a consortium's report over all its runs."""

WORDS = {
    "joint.title": ("Consortium report: {name}", "Konsortialbericht: {name}"),
    "joint.simulation": (
        "<b>These runs are simulations.</b> Their ledgers are nobody's, and their noise can be removed.",
        "<b>Diese Läufe sind Simulationen.</b> Ihre Budgetbücher gehören niemandem, und ihr Rauschen "
        "lässt sich entfernen.",
    ),
    "joint.summary": ("1. What each hospital has paid", "1. Was jede Klinik aufgewendet hat"),
    "joint.text": (
        "{runs} runs are known here, {unfinished} of them without a report. A run is charged in full "
        "as soon as a site admits it, so that unfinished ones count, too.",
        "Bekannt sind hier {runs} Läufe, {unfinished} davon ohne Bericht. Ein Lauf wird voll belastet, "
        "sobald ein Standort ihn bewilligt; unfertige zählen daher mit.",
    ),
    "joint.bounds": (
        "<b>The sums are an upper bound of what these runs together reveal</b> about a record that was "
        "in all of them: &epsilon; and &delta; of the runs added up. <b>They are a lower bound of what "
        "the site's ledger holds</b>, where epsilons add up there: the ledger also counts runs of "
        "other coordinators and runs whose folder is not here, of which a coordinator learns nothing. "
        "At a site whose runs add up as R&eacute;nyi divergences, its lifetime limit is the guarantee. "
        "Only the hospital knows the lifetime total and the limit (<code>fedmedformer site "
        "report</code>).",
        "<b>Die Summen sind eine obere Schranke dafür, was diese Läufe zusammen</b> über einen "
        "Datensatz verraten, der in allen enthalten war: &epsilon; und &delta; der Läufe addiert. "
        "<b>Sie sind eine untere Schranke für den Stand des Budgetbuchs</b> am Standort, sofern sich "
        "dort die &epsilon; addieren: Es zählt auch Läufe anderer Koordinationsstellen und Läufe, "
        "deren Ordner hier fehlt; davon erfährt eine Koordinationsstelle nichts. Addieren sich an "
        "einem Standort R&eacute;nyi-Divergenzen, so ist das Gesamtbudget die Garantie. Gesamtstand "
        "und Gesamtbudget kennt nur die Klinik (<code>fedmedformer site report</code>).",
    ),
    "joint.runs": ("runs", "Läufe"),
    "joint.epsilon": ("&epsilon;, all<br>runs here", "&epsilon;, alle<br>Läufe hier"),
    "joint.collude": (
        "&epsilon;, if all other<br>sites collude",
        "&epsilon;, wenn alle anderen<br>zusammenwirken",
    ),
    "joint.delta": ("&delta;, all<br>runs here", "&delta;, alle<br>Läufe hier"),
    "joint.state": ("signatures", "Signaturen"),
    "joint.state.all": ("all {n} signed", "alle {n} signiert"),
    "joint.state.some": ("{n} of {all} signed", "{n} von {all} signiert"),
    "joint.wrong": ("{n} wrong", "{n} falsch"),
    "joint.keys": (
        "{n} keys have signed for this site: ask the hospital which are its own",
        "Für diesen Standort haben {n} Schlüssel signiert: Fragen Sie die Klinik, welche ihr gehören",
    ),
    "joint.by-site": ("2. Runs of each site", "2. Läufe jedes Standorts"),
    "joint.guard": ("key of the guard: {key}", "Schlüssel des Guards: {key}"),
    "joint.no-guard": ("no guard has signed", "kein Guard hat signiert"),
    "joint.run": ("run", "Lauf"),
    "joint.begun": ("begun", "Beginn"),
    "joint.ended": ("ended", "Ende"),
    "joint.unfinished": ("no report", "ohne Bericht"),
    "joint.signed": ("signed", "signiert"),
    "joint.countersigned": ("signed, report countersigned", "signiert, Bericht gegengezeichnet"),
    "joint.unsigned": (
        "not signed: the coordinator's word",
        "nicht signiert: Angabe der Koordinationsstelle",
    ),
    "joint.is-wrong": (
        "WRONG: signature and numbers do not fit",
        "FALSCH: Signatur und Zahlen passen nicht zusammen",
    ),
    "joint.sum": ("together", "zusammen"),
    "joint.all-runs": ("3. Runs", "3. Läufe"),
    "joint.report": ("report", "Bericht"),
    "joint.report-signed": ("signed with {key}", "signiert mit {key}"),
    "joint.report-unsigned": ("not signed", "nicht signiert"),
    "joint.per": ("per {unit}", "je {unit}"),
    "joint.unit": ("unit", "Einheit"),
    "unit.image": ("image", "Bild"),
    "unit.patient": ("patient", "Person"),
    "joint.refusals": ("4. Refusals", "4. Ablehnungen"),
    "joint.no-refusals": (
        "No site has refused a run or a round here.",
        "Hier hat kein Standort einen Lauf oder eine Runde abgelehnt.",
    ),
    "joint.left-out": ("5. What was left out", "5. Was nicht berücksichtigt ist"),
    "joint.left-out.text": (
        "These folders are in no sum. A report that does not hold says nothing about what was paid.",
        "Diese Ordner sind in keiner Summe enthalten. Ein Bericht, der nicht stimmt, sagt nichts über "
        "die Kosten.",
    ),
    "joint.nothing-left-out": ("Nothing was left out.", "Alles ist berücksichtigt."),
    "joint.folder": ("folder", "Ordner"),
    "joint.reason": ("reason", "Grund"),
    "joint.end": (
        "{json} beside this page holds the same for programs, with every signed receipt; {verify} "
        "checks the signatures and sums. Compare the keys with what the hospitals' {show} shows.",
        "{json} neben dieser Seite enthält dasselbe für Programme, mit jeder signierten Quittung; "
        "{verify} prüft Signaturen und Summen. Vergleichen Sie die Schlüssel mit dem, was {show} in "
        "den Kliniken anzeigt.",
    ),
}
