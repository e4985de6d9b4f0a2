"""The template of the report's page."""

__all__ = ["PAGE"]

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1150px; margin: 0 auto; padding: 1rem; }
  h1 { font-size: 1.5rem; margin-bottom: .2rem; }
  h2 { font-size: 1.15rem; margin-top: 2rem; }
  .banner { background: #fff3cd; border-left: 5px solid #d39e00; padding: .6rem 1rem; margin: 1rem 0; }
  .notes { background: #eef3f8; border-left: 5px solid #5b87ad; padding: .3rem 1rem; margin: 1rem 0; }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
  th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
  th { border-bottom: 2px solid #888; font-weight: 600; vertical-align: bottom; }
  th.text, td.text { text-align: left; }
  td.wrap { white-space: normal; overflow-wrap: anywhere; }
  td.warn { color: #a33000; }
  img { max-width: 100%; height: auto; display: block; }
  figure { margin: 1rem 0 1.8rem; }
  figcaption { font-size: .87rem; color: #555; }
  .small { font-size: .87rem; color: #444; }
  tr.group td { background: #f1f1f1; font-weight: 600; text-align: left; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<div class="small">SSLSeg {{ version }}, {{ date }}</div>
<div class="banner">
{% if kind == "pseudo-label" %}
<b>Pseudo-labels, for research use only.</b> A method made them; unless a review says otherwise, nobody has checked
them. Not for diagnosis or treatment.
{% else %}
<b>For research use only.</b> Predictions of a method that nobody has checked. Not for diagnosis or treatment.
{% endif %}
</div>
{% if notes %}
<div class="notes">
{% for note in notes %}
<p>{{ note }}</p>
{% endfor %}
</div>
{% endif %}

{% for section in sections %}
<h2>{{ section.title }}</h2>
{{ section.body }}
{% endfor %}

{% if has_scores %}
<h2>{% if kind == "pseudo-label" %}Pseudo-labels: scores{% else %}Scores{% endif %} against the references</h2>
<div class="scroll"><table>
<tr><th class="text">class</th><th class="text">metric</th><th>mean</th><th>SD</th><th>median</th><th>range</th>
<th>cases<br>counted</th><th>left out<br>(one empty)</th><th>counted as perfect<br>(both empty)</th></tr>
{% for row in summary %}
<tr><td class="text">{{ row.class }}</td><td class="text">{{ row.metric }}</td><td>{{ row.mean }}</td>
<td>{{ row.sd }}</td><td>{{ row.median }}</td><td>{{ row.range }}</td><td>{{ row.counted }}</td>
<td{% if row.excluded %} class="warn"{% endif %}>{{ row.excluded }}</td><td>{{ row.both_empty }}</td></tr>
{% endfor %}
</table></div>
{% endif %}

<h2>Pictures</h2>
<p class="small">Slices are shown as stored, with the patient's right on the left of the picture where the slice allows;
slice numbers count from 0, positions are those of 3D Slicer's slice views at the middle of the slice.</p>
{% for picture in pictures %}
<figure>
<img src="data:image/png;base64,{{ picture.data }}" alt="{{ picture.words }}">
<figcaption>{{ picture.words }} ({{ picture.name }})</figcaption>
</figure>
{% endfor %}

<h2>Cases</h2>
<div class="scroll"><table>
<tr><th class="text">case</th><th class="text">class</th>
{% if has_scores %}
<th>Dice</th><th>IoU</th><th>HD<br>mm</th><th>HD95<br>pooled, mm</th><th>HD95<br>larger, mm</th><th>ASSD<br>mm</th>
{% endif %}
<th>volume<br>ml</th>
{% if has_scores %}
<th>reference<br>ml</th>
{% endif %}
{% if has_uncertainty %}
<th>expected<br>Dice</th><th>mean<br>entropy</th><th>uncertain<br>voxels</th>
<th>most uncertain<br>slice</th><th>review<br>order</th>
{% endif %}
{% if has_review %}
<th class="text">review</th>
{% endif %}
<th class="text"></th></tr>
{% for row in cases %}
<tr>
{% if row.first %}
<td class="text" rowspan="{{ row.span }}">{{ row.case }}</td>
{% endif %}
<td class="text">{{ row.class }}</td>
{% if has_scores %}
<td>{{ row.dice }}</td><td>{{ row.iou }}</td><td>{{ row.hd }}</td><td>{{ row.hd95 }}</td><td>{{ row.hd95_larger }}</td>
<td>{{ row.assd }}</td>
{% endif %}
<td>{{ row.volume }}</td>
{% if has_scores %}
<td>{{ row.reference_volume }}</td>
{% endif %}
{% if has_uncertainty %}
<td>{{ row.expected }}</td>
{% endif %}
{% if has_uncertainty and row.first %}
<td rowspan="{{ row.span }}">{{ row.entropy }}</td><td rowspan="{{ row.span }}">{{ row.uncertain }}</td>
<td rowspan="{{ row.span }}">{{ row.slice }}</td><td rowspan="{{ row.span }}">{{ row.look_first }}</td>
{% endif %}
{% if has_review and row.first %}
<td class="text" rowspan="{{ row.span }}">{{ row.review }}</td>
{% endif %}
<td class="text warn">{{ row.remark }}</td>
</tr>
{% endfor %}
</table></div>

<h2>How to read this</h2>
<ul class="small">
{% if has_scores %}
<li><b>Dice</b> is twice the overlap over the sum of both volumes; <b>IoU</b> is the overlap over the union, foreground
only. <b>mIoU incl. background</b> averages foreground and background IoU; it is far higher and serves only to compare
with papers that print it.</li>
<li><b>HD</b> is the largest distance between the surfaces, <b>HD95</b> its 95th percentile: <i>pooled</i> over both
directions together, or the <i>larger</i> of the two directions. <b>ASSD</b> is the mean distance. All in mm.</li>
<li>Both masks empty: Dice and IoU 1, distances 0. One empty: Dice and IoU 0, no distance; such cases are left out of
the means of distances, and counted.</li>
{% endif %}
{% if has_uncertainty %}
<li><b>Expected Dice</b> is what the method's own probabilities say: twice the probability inside the label over the sum
of all probability and the label's volume; of a class that was not found, how likely it is to be absent.
<b>Entropy</b> is 0 where the method is sure and ln 2 = 0.693 where the mean
probability is 0.5. <b>Mean entropy</b> is over all voxels up to 5 mm from the foreground; <b>uncertain voxels</b> are
those of them above half of ln 2.
<b>Review order</b> goes by expected Dice: 1 is the case to look at first. Certain does not mean correct.</li>
{% endif %}
</ul>

{% if provenance %}
<h2>How these were made</h2>
<div class="scroll"><table>
{% for name, text in provenance %}
<tr><td class="text">{{ name }}</td><td class="text wrap">{{ text }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
</body>
</html>
"""
